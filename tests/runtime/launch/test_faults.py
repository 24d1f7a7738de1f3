"""A rank killed wherever a step may be: all others end within seconds, the cause is named, nothing is left."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cli.command import in_a_shell
from tests.runtime.forked import unsupervised
from tests.runtime.launch.dying import CPU, RANKS, VICTIM, Death, scenario
from tests.runtime.test_run import checkpoints  # noqa: F401 - a fixture
from tests.runtime.transport.test_transport_mpi import installed
from tests.testbed.test_network import namespaces, possible, root
from wingspan.errors import RunError
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.ranks.nodes import Nodes
from wingspan.runtime.transport.choice import TransportKind, chosen
from wingspan.runtime.transport.transport import Transport
from wingspan.testbed import network
from wingspan.testbed.layout import make_layout

PLACES = ["dispatch", "combine", "chunks", "sequential", "two-batch"]
LIMIT_SECONDS = 10


@dataclass(frozen=True)
class Ground:
    """Where ranks run and how they reach each other."""

    kind: TransportKind
    ranks_per_node: int = RANKS
    nodes: Nodes | None = None


@pytest.fixture(params=["gloo", "shm", pytest.param("testbed", marks=[root, possible])])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """One host over each transport; and two nodes, where tokens go by the hierarchical dispatcher."""
    if request.param != "testbed":
        yield Ground({"gloo": TransportKind.TORCH, "shm": TransportKind.SHM}[request.param])
        return
    layout = make_layout(f"faults{os.getpid()}", 2, RANKS // 2, "400mbit")
    network.up(layout)
    try:
        yield Ground(TransportKind.SHM, layout.ranks_per_node, layout.places)
        assert [found.processes for found in network.find() if found.name == layout.name] == [[]]
    finally:
        network.down(layout.name)
    assert namespaces(layout.name) == []


@pytest.mark.parametrize("place", PLACES)
def test_all_end_and_nothing_is_left(ground, place, checkpoints, tmp_path):  # noqa: F811
    death, work = Death(tmp_path), scenario(place, checkpoints["mixtral"])
    names = os.listdir("/dev/shm")

    def on_rank(joined: Transport) -> None:
        with chosen(ground.kind, joined, CPU) as transport:
            memory = shared_memory(os.getpid())
            (tmp_path / f"memory{transport.world.rank}").write_text("\n".join(memory))
            work(transport, death)

    with pytest.raises(RunError, match=f"rank {VICTIM} was killed by signal SIGKILL"):
        run_ranks(on_rank, RANKS, ground.ranks_per_node, CPU, ground.nodes)
    assert time.monotonic() - death.seconds < LIMIT_SECONDS
    assert psutil.Process().children(recursive=True) == []
    used = {line for r in range(RANKS) for line in (tmp_path / f"memory{r}").read_text().splitlines()}
    assert len(used) == (0 if ground.kind is TransportKind.TORCH else RANKS // ground.ranks_per_node)
    assert used.isdisjoint(line for pid in psutil.pids() for line in shared_memory(pid))
    assert os.listdir("/dev/shm") == names


def shared_memory(pid: int) -> set[str]:
    """Device and number of each memory of ours that a process has mapped."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return {" ".join(line.split()[3:5]) for line in lines if "memfd:wingspan" in line}
    return set()


@pytest.mark.parametrize("kind", [TransportKind.TORCH, TransportKind.SHM])
@pytest.mark.parametrize("place", PLACES)
def test_ranks_that_nobody_ends_find_out_by_themselves(kind, place, checkpoints, tmp_path):  # noqa: F811
    """As under Slurm, which lets the others be."""
    death, work = Death(tmp_path), scenario(place, checkpoints["mixtral"])

    def on_rank(joined: Transport) -> None:
        with chosen(kind, joined, CPU) as transport:
            work(transport, death)

    codes, said = unsupervised(on_rank, RANKS, tmp_path)
    assert time.monotonic() - death.seconds < LIMIT_SECONDS
    assert codes == [-signal.SIGKILL if rank == VICTIM else 1 for rank in range(RANKS)]
    for rank in set(range(RANKS)) - {VICTIM}:
        assert f"rank {rank} lost contact with its peers: rank {VICTIM} ended" in said[rank]


@installed
def test_mpirun_ends_all_and_says_why(tmp_path):
    names = os.listdir("/dev/shm")
    launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(RANKS), sys.executable]
    done = in_a_shell([*launcher, "-m", "tests.runtime.launch.dying", "chunks", str(tmp_path)])
    assert done.returncode != 0
    assert re.search(rf"rank {VICTIM} .* exited on signal 9", done.stderr)
    pids = [int(file.read_text()) for file in tmp_path.glob("pid*")]
    assert len(pids) == RANKS
    # mpirun kills the last ones when it leaves.
    limit = Death(tmp_path).seconds + LIMIT_SECONDS
    while any(alive(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert time.monotonic() < limit
    assert os.listdir("/dev/shm") == names


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
