"""MPI carries what gloo carries, runs the main job under mpirun, and ends when a rank fails."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.cli.command import TINY, in_a_shell
from tests.runtime.forked import on_ranks
from tests.runtime.transport.test_transport_shm import KINDS, exchange
from wingspan.errors import InputError
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.mpi import join_mpi
from wingspan.runtime.transport.transport import Transport

installed = pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs an MPI and mpi4py: apt-get install -y openmpi-bin libopenmpi-dev; pip install 'wingspan[mpi]'",
)

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
TAIL = ["--max-new-tokens", "4", "--dtype", "float32", "--check", "--json"]

EXCHANGE = """
import os, torch
from tests.runtime.transport.test_transport_shm import KINDS, exchange
from wingspan.runtime.launch.start import join_ranks
from wingspan.runtime.launch.meeting.place import Place
from wingspan.runtime.launch.meeting.protocol import Patience
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.ranks.world import launch_from_environment

def work(transport):
    rank, size = transport.world.rank, transport.world.size
    sums = [float(exchange(transport, s, *KINDS[s % 4]).double().sum()) for s in range(40)]
    over_memory = SharedMemoryTransport(transport)
    assert sums == [float(exchange(over_memory, s, *KINDS[s % 4]).double().sum()) for s in range(40)]
    over_memory.close()
    half = transport.split(rank % 2)
    assert [int(v) for v in half.share(torch.tensor(rank))] == list(range(rank % 2, size, 2))
    assert transport.broadcast(rank) == 0
    if rank == int(os.environ.get("FAILS", "-1")):
        raise RuntimeError("this rank fails")
    gathered = transport.gather(sums)
    if gathered:
        print("sums", gathered, flush=True)

cpu = torch.device("cpu")
launch = launch_from_environment(os.environ)
join_ranks(work, Place.find(os.environ, launch, cpu, Patience(), ranks_per_node=2, over_mpi=True), cpu)
"""


def mpirun(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    exports = [part for name in variables for part in ("-x", name)]
    launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4", *exports, sys.executable]
    return in_a_shell([*launcher, *command], **variables)


@installed
def test_equals_gloo_step_by_step(tmp_path):
    def work(gloo: Transport) -> list[float]:
        return [float(exchange(gloo, s, *KINDS[s % 4]).double().sum()) for s in range(40)]

    done = mpirun("-c", EXCHANGE)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("sums"))
    assert json.loads(line.removeprefix("sums")) == on_ranks(work, 4, tmp_path)


@installed
def test_a_failing_rank_ends_the_others():
    start = time.monotonic()
    done = mpirun("-c", EXCHANGE, FAILS="2")
    assert done.returncode != 0
    assert "this rank fails" in done.stderr
    # Most of it is starting four interpreters.
    assert time.monotonic() - start < 60


@installed
def test_mpirun_gives_the_same_tokens_as_our_own_ranks():
    under = mpirun(*RUN, "--transport", "mpi", *TAIL)
    assert under.returncode == 0, under.stderr
    ours = in_a_shell([sys.executable, *RUN, "--ranks", "4", "--transport", "torch", *TAIL])
    results = [
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        for done in (under, ours)
    ]
    assert [r["check"]["passed"] for r in results] == [True, True]
    assert results[0]["outputs"] == results[1]["outputs"]


def test_without_mpirun_it_says_how_to_start():
    done = in_a_shell([sys.executable, *RUN, "--transport", "mpi"])
    assert done.returncode == 2
    assert "--transport mpi: start the ranks by MPI: mpirun -n" in done.stderr


def test_without_mpi4py_it_names_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match="apt-get install -y openmpi-bin"):
        join_mpi(World(0, 2, 2, 0))


@installed
def test_an_mpi_of_another_launcher_is_refused():
    """One process that believes in two ranks: what a mpi4py of another MPI sees."""
    code = "from wingspan.runtime.transport.mpi import *; join_mpi(World(0, 2, 2, 0))"
    done = in_a_shell([sys.executable, "-c", code])
    assert "built for another MPI" in done.stderr
