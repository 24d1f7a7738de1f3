"""How long ranks wait for each other: the limit is an option where there is somebody to wait for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from tests.cli.command import TINY

ALONE = {
    "run": ("run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "a"),
    "record": ("record", TINY, "--text", "README.md", "--ranks", "2", "--out", "OUT.parquet"),
    "calibrate": ("calibrate", "--ranks", "2", "--out", "OUT.yaml"),
}


@pytest.mark.parametrize("command", ALONE)
def test_a_limit_is_refused_where_nobody_is_waited_for(wingspan, tmp_path, command):
    arguments = [a.replace("OUT", str(tmp_path / "out")) for a in ALONE[command]]
    done = wingspan(*arguments, "--wait-seconds", "9")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "--wait-seconds 9" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_a_rank_that_never_comes_is_named_and_the_limit_kept():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wingspan.cli.main", "run", TINY, "--experts-per-rank", "4", "--prompt", "a",
         "--wait-seconds", "6"],
        env=os.environ | launch, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"waiting for rank 1 of 2 at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 60
