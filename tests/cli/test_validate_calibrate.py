"""The commands as a user types them: what they print, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.silicon.test_judge import write_products
from tests.simulate.published.table import row, write
from wingspan.specs.cluster import load_cluster


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wingspan.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def test_validate_prints_its_table_within_80_columns(tmp_path: Path):
    write_products(tmp_path, factor=1.02)
    result = run("validate", "--data", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "matrix product: FP8, dense" in result.stdout
    assert "2.0%" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(tmp_path) not in line) <= 80


def test_validate_as_json_and_its_exit_code_when_a_promise_breaks(tmp_path: Path):
    write_products(tmp_path, factor=2.0)
    result = run("validate", "--data", str(tmp_path), "--json")
    assert result.returncode == 1
    assert "promised median error is not met for: matrix product" in result.stderr
    (group,) = json.loads(result.stdout)["groups"]
    assert group["median"] == pytest.approx(0.5)
    assert group["holds"] is False


def test_validate_without_data(tmp_path: Path):
    missing = run("validate", "--data", str(tmp_path / "none"))
    assert missing.returncode == 2
    assert "no such folder" in missing.stderr
    empty = run("validate", "--data", str(tmp_path))
    assert empty.returncode == 2
    assert "none of the known tables" in empty.stderr


def test_validate_end_to_end_prints_each_point_within_80_columns(tmp_path: Path):
    table = write(tmp_path / "p.csv", row("A"), row("SGL020", overlap="TBO"), row("X", model="none"))
    result = run("validate", "--end-to-end", str(table))
    assert result.returncode == 0, result.stderr
    assert "11,000" in result.stdout
    assert "steps: EP >= 64" in result.stdout
    assert "not predicted (1): no preset of the model none: X" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(tmp_path) not in line) <= 80
    written = json.loads(run("validate", "--end-to-end", str(tmp_path), "--json").stdout)
    assert [point["id"] for point in written["points"]] == ["A", "SGL020"]
    assert written["trends"][0]["ids"] == ["A", "SGL020"]
    missing = run("validate", "--end-to-end", str(tmp_path / "none.csv"))
    assert missing.returncode == 2
    assert "no such file" in missing.stderr


def test_calibrate_writes_a_file_that_loads(tmp_path: Path):
    path = tmp_path / "here.yaml"
    result = run(
        "calibrate", "--ranks", "2", "--ranks-per-node", "1", "--out", str(path), "--cluster-name", "here"
    )
    assert result.returncode == 0, result.stderr
    found = load_cluster(str(path))
    assert (found.name, found.nodes) == ("here", 2)
    assert "link between nodes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ranks", "3", "--ranks-per-node", "2"), "does not divide 3 ranks"),
        (("--ranks", "0"), "--ranks 0: use 1 or more"),
        (("--out", "/nowhere/x.yaml"), "the folder /nowhere does not exist"),
        (("--device", "tpu"), "--device tpu: use cpu or cuda"),
    ],
)
def test_calibrate_refuses(arguments: tuple[str, ...], complaint: str):
    result = run("calibrate", *arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
