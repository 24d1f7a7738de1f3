"""Under torchrun, on one host and over two network namespaces, a command gives what it gives by its own ranks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, TINY, in_a_shell

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
RUN = [
    "-m",
    "wingspan.cli.main",
    "run",
    TINY,
    "--experts-per-rank",
    "2",
    "--prompt",
    "def f(",
    "--prompt",
    "import ",
]
TAIL = ["--max-new-tokens", "6", "--dtype", "float32", "--check", "--json"]


def outputs(text: str) -> list[list[int]]:
    """Token ids of the one JSON object among the launcher's lines."""
    line = next(line for line in text.splitlines() if line.startswith("{"))
    result = json.loads(line)
    assert result["check"]["passed"]
    return [o["token_ids"] for o in result["outputs"]]


def test_torchrun_gives_the_same_tokens_as_our_own_ranks():
    under = in_a_shell([*TORCHRUN, "--nproc-per-node", "4", "--standalone", *RUN, *TAIL])
    assert under.returncode == 0, under.stderr
    ours = in_a_shell([sys.executable, *RUN, "--ranks", "4", *TAIL])
    assert ours.returncode == 0, ours.stderr
    assert outputs(under.stdout) == outputs(ours.stdout)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = in_a_shell(
            [sys.executable, *RUN, *TAIL],
            RANK="0", WORLD_SIZE="4", LOCAL_RANK="0", LOCAL_WORLD_SIZE="4", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use; set MASTER_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_none_is_named():
    done = in_a_shell([sys.executable, *RUN, *TAIL], RANK="0", WORLD_SIZE="4", MASTER_PORT="many")
    assert done.returncode == 2
    assert "MASTER_PORT='many'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces joined by one link, 10.87.0.1 and 10.87.0.2."""
    if sys.platform != "linux" or os.geteuid() or shutil.which("ip") is None:
        pytest.skip("needs root, Linux and the ip command")
    names = [f"wingspan-test{os.getpid()}-{side}" for side in "ab"]
    ends = [f"ws{os.getpid() % 100000}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            names[1],
        )
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            ip("-n", name, "addr", "add", f"10.87.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [f"{name} {end}" for name, end in zip(names, ends, strict=True)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.mark.root
def test_two_nodes_by_torchrun_over_two_network_namespaces(two_hosts, tmp_path):
    processes = []
    for number, host in enumerate(two_hosts):
        name, interface = host.split()
        command = [
            "ip", "netns", "exec", name, *TORCHRUN, "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node",
            "2", "--master-addr", "10.87.0.1", "--master-port", "29511", *RUN, *TAIL,
        ]  # fmt: skip
        processes.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=(tmp_path / f"out{number}").open("w"),
                stderr=(tmp_path / f"err{number}").open("w"),
                env=os.environ | {"GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        )
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    assert codes == [0, 0], Path(tmp_path / "err0").read_text() + Path(tmp_path / "err1").read_text()
    text = (tmp_path / "out0").read_text()
    assert len(outputs(text)) == 2
    report = json.loads(next(line for line in text.splitlines() if line.startswith("{")))["report"]
    assert report["ranks_per_node"] == 2
    assert sum(report["sent_across_nodes_bytes"]) > 0
