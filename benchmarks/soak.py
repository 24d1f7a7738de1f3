"""Many steps of random uneven batches over every transport: none may hang, leak, or come out wrong.

`python -m benchmarks.soak` (1,000 steps on 8 ranks over each of the four):

gloo       torch.distributed
shm        shared memory, and the dispatcher that reads rows where they lie
shm-nodes  the ranks count as two nodes: the hierarchical dispatcher, shared memory inside, gloo across
mpi        MPI, by mpirun, where it is installed

A step is two MoE layers, one with an expert per rank and one with replicas, in a schedule drawn at random. Each rank
has from no tokens to some hundreds, some of them padding, and is late now and then; sometimes no rank has any, or all
choose one expert. An expert multiplies by a number of its own, so one line of torch gives what must come out, and
numbers are such that every sum is exact in any order.

The first steps show every buffer its largest batch. From then on (at least a fifth of the steps) a rank's resident
memory may grow by the bound that is printed, and its descriptors and threads not at all. A rank that is longer in a
step than the limit shows where it is and ends the run. The exit code is 1 where anything was not as it must be.

Shapes: R ranks, E = R experts, T tokens of this rank, K experts per token, D hidden size, S slots of this rank, N rows.
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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wingspan.errors import RunError
from wingspan.placement.placement import Placement
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.generation.micro_batches import split_rows, take_turns
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Flow, Step, flow_named
from wingspan.runtime.ranks.group import Group
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")
HIDDEN = 64
TOP_K = 3
MOST_TOKENS = 300
FLOWS = [flow_named(name) for name in ("sequential", "chunks=2", "chunks=4", "two-batch")]


@dataclass(frozen=True)
class Way:
    """A transport, and how many nodes the ranks count as."""

    name: str
    transport: str
    nodes: int = 1


WAYS = {
    way.name: way
    for way in (Way("gloo", "torch"), Way("shm", "shm"), Way("shm-nodes", "shm", nodes=2), Way("mpi", "mpi"))
}


@dataclass(frozen=True)
class Soak:
    """How long, on how many ranks, and what is too much.

    Args:
        steps: of each way.
        ranks: at least `TOP_K`.
        most_growth_bytes: of a rank's resident memory, from `settled` to the end.
        most_step_seconds: a rank that is longer in one step hangs.
    """

    steps: int = 1000
    ranks: int = 8
    most_growth_bytes: int = 4 << 20
    most_step_seconds: float = 60.0

    @property
    def settled(self) -> int:
        """The first step after which nothing may grow."""
        return max(self.steps // 5, len(FLOWS) * self.ranks)


@dataclass(frozen=True)
class Plan:
    """One step, as all ranks know it. `hot`: the expert that every token chooses, if any."""

    flow: Flow
    dtype: torch.dtype
    tokens_R: list[int]
    hot: int | None


@dataclass(frozen=True)
class Batch:
    """One rank's tokens and their choices in both layers; `valid_T` None: none is padding."""

    x_TD: torch.Tensor
    valid_T: torch.Tensor | None
    experts_LTK: torch.Tensor
    weights_TK: torch.Tensor


@dataclass(frozen=True)
class Held:
    """What a rank holds of the machine."""

    resident_bytes: int
    descriptors: int
    threads: int


def plan(number: int, soak: Soak) -> Plan:
    """A random step; the first ones are the largest of every schedule at every expert."""
    rng = np.random.default_rng((1, number))
    R, dtype = soak.ranks, (torch.float32, torch.bfloat16)[rng.integers(2)]
    if number < len(FLOWS) * R:
        # Wider rows first: they need the larger buffers.
        return Plan(FLOWS[number % len(FLOWS)], torch.float32, [MOST_TOKENS] * R, number // len(FLOWS))
    tokens_R = rng.integers(0, MOST_TOKENS + 1, R) * (rng.random(R) < 0.8) * (rng.random() < 0.95)
    hot = int(rng.integers(R)) if rng.random() < 0.2 else None
    return Plan(FLOWS[rng.integers(len(FLOWS))], dtype, tokens_R.tolist(), hot)


def batch(number: int, plan: Plan, rank: int) -> Batch:
    """This rank's part of the step."""
    rng = np.random.default_rng((2, number, rank))
    T, E = plan.tokens_R[rank], len(plan.tokens_R)
    skew = rng.choice([0.0, 1.0, 2.0])
    popularity_E = -skew * np.log(rng.permutation(E) + 1.0)
    if plan.hot is not None:
        popularity_E[plan.hot] = np.inf
    # Gumbel noise on log popularity: the k largest are a draw without replacement.
    scores_LTE = popularity_E + rng.gumbel(size=(2, T, E))
    valid_T = torch.from_numpy(rng.random(T) < 0.9) if rng.random() < 0.3 else None
    return Batch(
        torch.from_numpy(rng.choice([-2, -1, 1, 2], (T, HIDDEN))).to(plan.dtype),
        valid_T,
        torch.from_numpy(np.argsort(-scores_LTE, axis=2)[:, :, :TOP_K].copy()),
        torch.from_numpy(rng.integers(1, 5, (T, TOP_K)) / 4).float(),
    )


def factor_of(experts: torch.Tensor) -> torch.Tensor:
    """What each expert multiplies by: at most 8, so that BF16 holds every sum of quarters exactly."""
    return 1 + experts % 8


def expected(given: Batch, layer: int) -> torch.Tensor:
    """The plain dense sum (T, D) of a layer, in FP32; zero for padding."""
    factor_TK = given.weights_TK * factor_of(given.experts_LTK[layer])
    y_TD = given.x_TD.float() * factor_TK.sum(1, keepdim=True)
    return y_TD if given.valid_T is None else y_TD * given.valid_T[:, None]


class MultiplyingExperts:
    """A rank's experts."""

    def __init__(self, experts: Sequence[int]) -> None:
        self._factor_S = factor_of(torch.tensor(experts))

    def __call__(self, rows_ND: torch.Tensor, counts_S: Sequence[int]) -> torch.Tensor:
        """Each row times its expert's factor."""
        factor_N = self._factor_S.repeat_interleave(torch.tensor(counts_S))
        return rows_ND * factor_N[:, None].to(rows_ND.dtype)


def replicated(ranks: int) -> Placement:
    """Every expert twice: on the rank of its number and on the one before."""
    slots = [[[rank, (rank + 1) % ranks] for rank in range(ranks)]]
    return Placement(np.array(slots), ranks)


class Rank:
    """One rank's layers, built as a run builds them."""

    def __init__(self, transport: Transport, soak: Soak) -> None:
        self._transport = transport
        self._soak = soak
        self._rank = transport.world.rank
        self._step = Step()
        self._recorder = Recorder(self._rank, soak.ranks)
        self._monitor = LoadMonitor(2, soak.ranks, CPU)
        placements = [linear(1, soak.ranks, soak.ranks), replicated(soak.ranks)]
        dispatchers = Dispatchers(placements[0], transport, Buffers(), CPU, DEFAULT_DISPATCH)
        self._layers = [self._layer(i, placed, dispatchers) for i, placed in enumerate(placements)]

    def _layer(self, index: int, placement: Placement, dispatchers: Dispatchers) -> ExpertParallelLayer:
        experts: Any = MultiplyingExperts(placement.experts_on(0, self._rank))
        dispatcher = dispatchers.for_layer(0, placement)
        return ExpertParallelLayer(
            index, index, experts, dispatcher, self._monitor, self._recorder, self._step
        )

    @torch.inference_mode()
    def step(self, number: int) -> None:
        """Collective. Raises `RunError` where a result is wrong."""
        now = plan(number, self._soak)
        mine = batch(number, now, self._rank)
        self._recorder.begin_step("prefill", len(mine.x_TD))
        self._step.flow = now.flow
        parts = split_rows(len(mine.x_TD), now.flow.micro_batches)
        valid = [None if mine.valid_T is None else mine.valid_T[part] for part in parts]
        forwards = [partial(self._forward, number, mine, part) for part in parts]
        if len(parts) == 1:
            self._step.valid_T = valid[0]
            forwards[0]()
        else:
            take_turns(forwards, valid, self._step)
        self._recorder.end_step()
        self._recorder.steps.clear()
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


def held() -> Held:
    """What this process holds now; of its memory what it wrote, not what it mapped from files."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    kilobytes = [int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("RssAnon", "RssShmem")]  # type: ignore[index]
    return Held(sum(kilobytes) * 1024, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))


def on_rank(transport: Transport, way: Way, soak: Soak) -> None:
    """Collective: all steps; rank 0 prints. Raises `RunError` where anything is not as it must be."""
    rank, start = Rank(transport, soak), time.monotonic()
    speaks = transport.world.rank == 0
    settled = slowest = None
    for number in range(soak.steps):
        if number == soak.settled:
            settled = held()
        faulthandler.dump_traceback_later(soak.most_step_seconds, exit=True, file=2)
        begun = time.monotonic()
        rank.step(number)
        slowest = max(slowest or 0.0, time.monotonic() - begun)
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
    print(f"{way.name:10} resident memory since step {soak.settled}, kB: {[g // 1000 for g in growth_R]}")
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
    if way.transport == "mpi" and "OMPI_COMM_WORLD_SIZE" not in os.environ:
        _by_mpirun(way, soak)
        return
    group = Group.find(os.environ, soak.ranks, soak.ranks // way.nodes, way.transport)
    group.run(lambda transport: on_rank(transport, way, soak))


def _by_mpirun(way: Way, soak: Soak) -> None:
    """This command once more, on every rank."""
    if shutil.which("mpirun") is None:
        print(f"{way.name:10} left out: mpirun is not installed")
        return
    launcher = ["mpirun", "--oversubscribe", "-n", str(soak.ranks)]
    launcher += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "benchmarks.soak", "--ways", way.name, "--ranks", str(soak.ranks)]
    options = ["--steps", str(soak.steps), "--most-growth-mb", str(soak.most_growth_bytes / 1e6)]
    limit = ["--step-limit", str(soak.most_step_seconds)]
    if subprocess.run([*launcher, *command, *options, *limit], check=False).returncode:
        raise RunError(f"{way.name}: mpirun failed")


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
    soak = replace(
        default, steps=chosen.steps, ranks=chosen.ranks, most_growth_bytes=int(chosen.most_growth_mb * 1e6),
        most_step_seconds=chosen.step_limit,
    )  # fmt: skip
    failed = 0
    for name in chosen.ways:
        try:
            run(WAYS[name], soak)
        except RunError as error:
            print(f"FAILED: {error}", flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
