import json
import subprocess
import sys


def test_doctor_names_what_is_there_and_what_is_missing(wingspan):
    findings = {f["name"]: f for f in json.loads(wingspan("doctor", "--json").out)}
    assert findings["torch"]["found"]
    assert findings["gloo"]["found"]
    assert all(f["found"] or f["costs"] for f in findings.values())
    assert "torch" in wingspan("doctor").out


def test_doctor_asks_for_shared_memory_instead_of_guessing():
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1000; "$0" -m wingspan.cli.main doctor --json', sys.executable],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (found,) = [f for f in json.loads(done.stdout) if f["name"] == "shared memory"]
    assert (found["found"], found["costs"]) == (
        "",
        "ranks of one machine exchange rows over loopback; File too large",
    )
