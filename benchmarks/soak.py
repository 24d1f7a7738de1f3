"""Many steps of random uneven batches over every transport: none may hang, leak, or come out wrong.

`python -m benchmarks.soak` (1,000 steps on 8 ranks over each of these):

gloo        torch.distributed
gloo-nodes  the ranks count as four nodes, which take turns in bulk exchanges
shm         shared memory, and the dispatcher that reads rows where they lie
shm-nodes   the ranks count as two nodes: the hierarchical dispatcher, shared memory inside, gloo across
mpi         MPI, by mpirun, where it is installed

A step is two MoE layers, in a schedule and on a batch drawn at random (see `benchmarks.uneven`); each rank is late now
and then.

The first steps show every buffer its largest batch. From then on (at least a fifth of the steps) a rank's resident
memory may grow by the bound that is printed, and its descriptors and threads not at all. A rank that is longer in a
step than the limit shows where it is and ends the run. The exit code is 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.uneven import (
    TOP_K,
    Batch,
    MultiplyingExperts,
    batch,
    expected,
    largest_steps,
    placements,
    plan,
)
from wingspan.errors import RunError, WingspanError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.generation.micro_batches import interleave, split_rows
from wingspan.runtime.launch.group import Group
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.engine import return_freed_memory
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step, TokenRows
from wingspan.runtime.ranks.world import launch_from_environment
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.placement import Placement

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Way:
    """A transport, and how many nodes the ranks count as."""

    name: str
    transport: str
    nodes: int = 1


WAYS = {
    way.name: way
    for way in (
        Way("gloo", "torch"),
        Way("gloo-nodes", "torch", nodes=4),
        Way("shm", "shm"),
        Way("shm-nodes", "shm", nodes=2),
        Way("mpi", "mpi"),
    )
}


@dataclass(frozen=True)
class Soak:
    """How long, on how many ranks, and what is too much.

    Args:
        steps: of each way.
        ranks: `TOP_K` or more.
        most_growth_bytes: of a rank's resident memory, from `settled` to the end.
        most_step_seconds: a rank that is longer in one step hangs.
    """

    steps: int = 1000
    ranks: int = 8
    most_growth_bytes: int = 4_000_000
    most_step_seconds: float = 60.0

    @property
    def settled(self) -> int:
        """The first step after which nothing may grow."""
        return max(self.steps // 5, largest_steps(self.ranks))


@dataclass(frozen=True)
class Held:
    """What a rank holds of the machine."""

    resident_bytes: int
    descriptors: int
    threads: int


class Rank:
    """One rank's layers, built as a run builds them."""

    def __init__(self, transport: Transport, soak: Soak) -> None:
        self._transport = transport
        self._soak = soak
        self._rank = transport.world.rank
        self._step = Step()
        self._recorder = Recorder(self._rank, soak.ranks, keep_steps=1)
        self._monitor = LoadMonitor(2, soak.ranks, CPU)
        placed = placements(soak.ranks)
        dispatchers = Dispatchers(placed[0], transport, Buffers(), CPU, DEFAULT_DISPATCH)
        self._layers = [self._layer(index, of_layer, dispatchers) for index, of_layer in enumerate(placed)]

    def _layer(self, index: int, placement: Placement, dispatchers: Dispatchers) -> ExpertParallelLayer:
        experts: Any = MultiplyingExperts(placement.experts_on(0, self._rank))
        dispatcher = dispatchers.for_layer(0, placement)
        return ExpertParallelLayer(
            index, index, experts, dispatcher, self._monitor, self._recorder, self._step
        )

    @torch.inference_mode()
    def step(self, number: int) -> None:
        """Collective. Raises `RunError` where a result is wrong."""
        now = plan(number, self._soak.ranks)
        mine = batch(number, now, self._rank)
        self._recorder.begin_step("prefill", len(mine.x_TD))
        self._step.flow = now.flow
        parts = split_rows(len(mine.x_TD), now.flow.micro_batches)
        tokens = [None if mine.valid_T is None else _tokens(mine.valid_T[part]) for part in parts]
        forwards = [partial(self._forward, number, mine, part) for part in parts]
        if len(parts) == 1:
            self._step.tokens = tokens[0]
            forwards[0]()
        else:
            interleave(forwards, tokens, self._step)
        self._recorder.end_step()
        self._monitor.take()
        # As between the steps of a generation: what is not rows goes another way through some transports.
        tokens_R = self._transport.share(torch.tensor(len(mine.x_TD)))
        if tokens_R.tolist() != now.tokens_R:
            raise RunError(f"rank {self._rank}, step {number}: shared {tokens_R.tolist()}")

    def _forward(self, number: int, mine: Batch, part: slice) -> None:
        rng = np.random.default_rng((3, number, self._rank))
        for layer in self._layers:
            if rng.random() < 0.1:
                time.sleep(rng.random() * 5e-3)
            experts_TK = mine.experts_LTK[layer.index, part]
            y_TD = layer(mine.x_TD[part], experts_TK, mine.weights_TK[part])
            wrong = (y_TD.float() != expected(mine, layer.index)[part]).any(1)
            if wrong.any():
                where = f"rank {self._rank}, step {number}, {self._step.flow.name}, layer {layer.index}"
                raise RunError(f"{where}: {int(wrong.sum())} of {len(y_TD)} tokens came out wrong")


def _tokens(valid_T: torch.Tensor) -> TokenRows:
    return TokenRows(valid_T.nonzero().flatten(), len(valid_T))


def held() -> Held:
    """What this process holds now; of its memory what it wrote and still uses, not what it mapped from files."""
    gc.collect()
    return_freed_memory()
    status = Path("/proc/self/status").read_text()
    kilobytes = [int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("RssAnon", "RssShmem")]  # type: ignore[index]
    return Held(sum(kilobytes) * 1024, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))


def on_rank(transport: Transport, way: Way, soak: Soak) -> None:
    """Collective: all steps; rank 0 prints. Raises `RunError` where anything is not as it must be."""
    rank, start = Rank(transport, soak), time.monotonic()
    speaks = transport.world.rank == 0
    settled, slowest = None, 0.0
    for number in range(soak.steps):
        if number == soak.settled:
            settled = held()
        faulthandler.dump_traceback_later(soak.most_step_seconds, exit=True, file=2)
        begun = time.monotonic()
        rank.step(number)
        slowest = max(slowest, time.monotonic() - begun)
        faulthandler.cancel_dump_traceback_later()
        if speaks and (number + 1) % 100 == 0:
            print(f"{way.name:10} {number + 1:5} steps {time.monotonic() - start:6.1f} s", flush=True)
    seconds = time.monotonic() - start
    changes = transport.gather((settled, held()))
    if changes is not None:
        print(f"{way.name:10} {soak.steps} steps in {seconds:.1f} s, the slowest {slowest:.2f} s", flush=True)
        judge(way, soak, changes)


def judge(way: Way, soak: Soak, changes: list[Any]) -> None:
    """Print what each rank holds more than when it had settled; raise `RunError` where that is too much."""
    growth_R = [late.resident_bytes - early.resident_bytes for early, late in changes]
    print(
        f"{way.name:10} resident memory since step {soak.settled}: "
        f"{' '.join(f'{growth / 1000:+.0f}' for growth in growth_R)} kB (at most {soak.most_growth_bytes // 1000})"
    )
    problems = [
        f"rank {rank} grew by {growth} bytes"
        for rank, growth in enumerate(growth_R)
        if growth > soak.most_growth_bytes
    ]
    for what in ("descriptors", "threads"):
        counts = [(getattr(early, what), getattr(late, what)) for early, late in changes]
        print(f"{way.name:10} {what}: " + " ".join(f"{early}->{late}" for early, late in counts), flush=True)
        problems += [
            f"rank {r} went from {early} to {late} {what}"
            for r, (early, late) in enumerate(counts)
            if late > early
        ]
    if problems:
        raise RunError(f"{way.name}: {'; '.join(problems)}")


def run(way: Way, soak: Soak) -> None:
    """All steps over one way, on ranks of their own; raises `RunError` where anything is not as it must be."""
    names = set(os.listdir("/dev/shm"))
    if way.transport == "mpi":
        _by_mpirun(way, soak)
    else:
        group = Group.find({}, soak.ranks, soak.ranks // way.nodes, way.transport)
        group.run(lambda transport: on_rank(transport, way, soak))
    left = set(os.listdir("/dev/shm")) - names
    if left:
        raise RunError(f"{way.name}: left in /dev/shm: {', '.join(sorted(left))}")
    if psutil.Process().children(recursive=True):
        raise RunError(f"{way.name}: left processes behind")


def _by_mpirun(way: Way, soak: Soak) -> None:
    """This command once more, by every rank."""
    if shutil.which("mpirun") is None:
        print(f"{way.name:10} left out: mpirun is not installed")
        return
    launcher = ["mpirun", "--oversubscribe", "-n", str(soak.ranks)]
    launcher += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "benchmarks.soak", *sys.argv[1:], "--ways", way.name]
    if subprocess.run([*launcher, *command], check=False).returncode:
        raise RunError(f"{way.name}: mpirun failed")


def join(way: Way, soak: Soak) -> None:
    """One of mpirun's ranks."""
    group = Group.find(os.environ, soak.ranks, None, way.transport)
    group.run(lambda transport: on_rank(transport, way, soak))


def main() -> int:
    default = Soak()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--ranks", type=int, default=default.ranks)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--most-growth-mb", type=float, default=default.most_growth_bytes / 1e6)
    parser.add_argument("--step-limit", type=float, default=default.most_step_seconds, help="seconds")
    chosen = parser.parse_args()
    soak = Soak(chosen.steps, chosen.ranks, int(chosen.most_growth_mb * 1e6), chosen.step_limit)
    if soak.ranks < TOP_K or soak.steps <= soak.settled:
        parser.error(f"needs {TOP_K} ranks or more, and more than {largest_steps(soak.ranks)} steps")
    under_mpirun = launch_from_environment(os.environ) is not None
    failed = 0
    for name in chosen.ways:
        try:
            (join if under_mpirun else run)(WAYS[name], soak)
        except WingspanError as error:
            print(f"FAILED: {error}", flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
