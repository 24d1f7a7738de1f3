"""Progress is on a terminal's standard error while work lasts, and nowhere else."""

import os
import pty
import re
import subprocess
import sys

from tests.cli.command import REPOSITORY, in_a_shell

MAIN = [sys.executable, "-m", "wingspan.cli.main"]


def on_a_terminal(*arguments: str, **environment: str) -> tuple[str, str]:
    """Standard output, which is none, and what the terminal of standard error gets."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MAIN, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=REPOSITORY,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment,
        text=True,
    ) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            written += piece
        assert child.stdout is not None
        out = child.stdout.read()
        assert child.wait(timeout=60) == 0
    os.close(ours)
    return out, written.decode()


def synthesize(folder) -> tuple[str, ...]:
    return "synthesize", "uniform", "--tokens", "3000", "--layers", "4", "--out", str(folder / "t.parquet")


def test_a_terminal_sees_how_far_it_is_and_standard_output_does_not(tmp_path):
    out, seen = on_a_terminal(*synthesize(tmp_path))
    assert "drawing tokens" in seen
    assert "of 3,000" in seen
    assert "\x1b[2K" in seen[-60:]  # the line is erased at the end
    assert "drawing" not in out


def test_a_terminal_that_cannot_move_back_gets_nothing(tmp_path):
    assert on_a_terminal(*synthesize(tmp_path), TERM="dumb")[1] == ""


def test_a_log_gets_nothing(tmp_path):
    done = in_a_shell([*MAIN, *synthesize(tmp_path)])
    assert (done.returncode, done.stderr) == (0, "")
    assert "3,000 tokens" in done.stdout


def test_record_counts_its_tokens_on_rank_0_alone(tmp_path):
    seen = on_a_terminal(
        "record", "models/tiny", "--text", "LICENSE", "--ranks", "2", "--max-tokens", "2000", "--request-tokens", "50",
        "--out", str(tmp_path / "t.parquet"),
    )[1]  # fmt: skip
    assert "recording tokens" in seen
    counts = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) of 2,000", seen)]
    assert counts == sorted(counts)
    assert 0 < counts[-1] <= 2000
    assert "\x1b[2K" in seen[-60:]
