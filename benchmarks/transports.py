"""Dispatch and combine on one host: shared memory against gloo over loopback.

`python -m benchmarks.transports` (8 ranks; 16, 256 and 2048 tokens per rank of hidden 1024, top-2 of 8 experts).

Contestants, rounds interleaved in one process group, results compared with each other:

gloo    the flat dispatcher over torch.distributed's gloo
shm     the same dispatcher over the shared-memory transport
shared  the dispatcher that `wingspan run --transport shm` takes on one host: rows are read where they lie

A round's time is the slowest rank's, from a common start. Printed: the median and the best of the rounds, gloo's over
each, and the processor time of all ranks together, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.shared import SharedMemoryDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.ranks.launch import run_ranks
from wingspan.runtime.ranks.memory import keep_freed_memory
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One line per contestant."""

    tokens: int
    dtype: torch.dtype
    hidden: int
    top_k: int
    rounds: int


@dataclass(frozen=True)
class Times:
    """One round: the slowest rank's wall time, and all ranks' processor time."""

    wall_seconds: float
    processor_seconds: float


@torch.inference_mode()
def on_rank(transport: Transport, cases: Sequence[Case]) -> None:
    keep_freed_memory()
    size = transport.world.size
    shared = SharedMemoryTransport(transport)
    slots = SlotMap(linear(1, size, size, 1), 0, transport.world, CPU)
    contestants: dict[str, Dispatcher] = {
        "gloo": FlatDispatcher(transport, slots, [1] * size, Buffers()),
        "shm": FlatDispatcher(shared, slots, [1] * size, Buffers()),
        "shared": SharedMemoryDispatcher(shared.inside, slots, [1] * size),
    }
    for case in cases:
        measure(transport, shared, contestants, case)


def measure(transport: Transport, shared: Transport, contestants: dict[str, Dispatcher], case: Case) -> None:
    x_TD, experts_TK, weights_TK = inputs(case, transport.world.rank, transport.world.size)
    times: dict[str, list[Times]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(case.rounds + 1):
        turn = number % len(names)
        results = {}
        for name in names[turn:] + names[:turn]:
            call = there_and_back(contestants[name], x_TD, experts_TK, weights_TK)
            times[name].append(timed(transport, shared, call))
            results[name] = call.result
        if any(not torch.equal(result, results["gloo"]) for result in results.values()):
            raise RuntimeError(f"{case}: the contestants' results differ")
    if transport.world.rank == 0:
        show(case, {name: rounds[1:] for name, rounds in times.items()})


class there_and_back:  # noqa: N801 - reads as a call
    """One dispatch and combine; the experts hand back what they got."""

    def __init__(self, dispatcher: Dispatcher, *inputs: torch.Tensor) -> None:
        self._dispatcher = dispatcher
        self._inputs = inputs
        self.result = torch.empty(0)

    def __call__(self) -> None:
        """Collective."""
        (route,) = self._dispatcher.route(*self._inputs, chunks=1, lane=0)
        received = self._dispatcher.send(route).wait()
        self.result = self._dispatcher.send_back(received.rows_ND, route).wait()


def timed(transport: Transport, shared: Transport, call: Callable[[], None]) -> Times:
    # A barrier that wakes all ranks within microseconds.
    shared.exchange_counts(torch.zeros((transport.world.size, 1), dtype=torch.int64))
    wall, processor = time.perf_counter(), time.process_time()
    call()
    spent = torch.tensor([time.perf_counter() - wall, time.process_time() - processor], dtype=torch.float64)
    wall_R, processor_R = transport.share(spent).unbind(1)
    return Times(float(wall_R.max()), float(processor_R.sum()))


def inputs(case: Case, rank: int, experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    x_TD = torch.randn(case.tokens, case.hidden, generator=generator).to(case.dtype)
    experts_TK = torch.rand(case.tokens, experts, generator=generator).topk(case.top_k).indices
    return x_TD, experts_TK, torch.rand(case.tokens, case.top_k, generator=generator)


def show(case: Case, times: dict[str, list[Times]]) -> None:
    wall = {name: [t.wall_seconds for t in rounds] for name, rounds in times.items()}
    processor = {
        name: statistics.median(t.processor_seconds for t in rounds) for name, rounds in times.items()
    }
    for name in times:
        median, best = statistics.median(wall[name]), min(wall[name])
        print(
            f"{case.tokens:6} {str(case.dtype).removeprefix('torch.'):9} {name:7}"
            f"{median * 1e3:9.2f} {statistics.median(wall['gloo']) / median:6.2f}x"
            f"{best * 1e3:9.2f} {min(wall['gloo']) / best:6.2f}x"
            f"{processor[name] * 1e3:9.2f} {processor['gloo'] / processor[name]:6.2f}x",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 256, 2048])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    chosen = parser.parse_args()
    cases = [
        Case(tokens, getattr(torch, dtype), chosen.hidden, chosen.top_k, chosen.rounds)
        for dtype in chosen.dtypes
        for tokens in chosen.tokens
    ]
    print(
        f"{chosen.ranks} ranks, hidden {chosen.hidden}, top-{chosen.top_k}, {chosen.rounds} rounds; milliseconds"
    )
    print("tokens dtype     how       median  ratio     best  ratio  cpu sum  ratio")
    run_ranks(lambda transport: on_rank(transport, cases), chosen.ranks, chosen.ranks, CPU)


if __name__ == "__main__":
    main()
