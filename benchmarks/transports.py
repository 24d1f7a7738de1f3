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
from collections.abc import Sequence

import torch

from benchmarks.exchange import Case, Times, rounds, through
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.shared import SharedMemoryDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.ranks.memory import keep_freed_memory
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


@torch.inference_mode()
def on_rank(transport: Transport, cases: Sequence[Case]) -> None:
    """Take part in the rounds of every case; rank 0 prints."""
    keep_freed_memory()
    size = transport.world.size
    shared = SharedMemoryTransport(transport)
    slots = SlotMap(linear(1, size, size, 1), 0, transport.world, CPU)
    contestants = {
        "gloo": through(FlatDispatcher(transport, slots, [1] * size, Buffers())),
        "shm": through(FlatDispatcher(shared, slots, [1] * size, Buffers())),
        "shared": through(SharedMemoryDispatcher(shared.inside, slots, [1] * size)),
    }
    for case in cases:
        times = rounds(transport, shared, contestants, case)
        if transport.world.rank == 0:
            show(case, times)


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
