"""Dispatch and combine from 1 to 4096 tokens per rank: ours against the plain sequence of `all_to_all_single`.

`python -m benchmarks.curve` (6 minutes; 8 ranks on one host, hidden 1024, top-2 of 8 experts, BF16, no expert compute).

plain   torch alone (`benchmarks/plain.py`): sort, exchange counts, rows there and back, weighted sum; blocking; gloo
again   the same once more: how far apart two medians of one thing are
flat    `wingspan run --transport torch`: the flat dispatcher over the same gloo
shm     `wingspan run --transport shm`: on one host, rows are read where they lie

Rounds are interleaved in one process group and results compared. A round's time is the slowest rank's, from a common
start; printed are medians and plain's over ours, then these ratios as a curve.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch

from benchmarks.exchange import Case, rounds, through
from benchmarks.plain import plain_sequence
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.ranks.memory import keep_freed_memory
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")
OURS = ("flat", "shm")
OTHERS = ("again", *OURS)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
BAR_COLUMNS = 48

Ratios = dict[str, float]
"""Plain's median over each other's."""


@torch.inference_mode()
def on_rank(transport: Transport, cases: Sequence[Case]) -> None:
    """Take part in the rounds of every case; rank 0 prints."""
    keep_freed_memory()
    size = transport.world.size
    shared = SharedMemoryTransport(transport)
    contestants = {name: plain_sequence(lambda rows_ND, _: rows_ND, 1) for name in ("plain", "again")}
    for name, over in zip(OURS, (transport, shared), strict=True):
        dispatchers = Dispatchers(linear(1, size, size, 1), over, Buffers(), CPU, DEFAULT_DISPATCH)
        contestants[name] = through(dispatchers.for_layer(0))
    curve: dict[int, Ratios] = {}
    for case in cases:
        times = rounds(transport, shared, contestants, case, TOLERANCE[case.dtype])
        medians = {name: statistics.median(t.wall_seconds for t in spent) for name, spent in times.items()}
        curve[case.tokens] = {name: medians["plain"] / medians[name] for name in OTHERS}
        if transport.world.rank == 0:
            print(row(case.tokens, medians, curve[case.tokens]), flush=True)
    if transport.world.rank == 0:
        print("\n".join(["", *bars(curve)]), flush=True)


def more_rounds(tokens: int) -> int:
    """Few tokens take more rounds: all that they take is the operating system's changes between ranks, which vary."""
    return max(1, min(12, 512 // tokens))


def row(tokens: int, medians: dict[str, float], ratios: Ratios) -> str:
    """One line of the table."""
    others = "".join(f"{medians[name] * 1e3:10.2f} {ratios[name]:5.2f}x" for name in OTHERS)
    return f"{tokens:6}{medians['plain'] * 1e3:10.2f}{others}"


def bars(curve: dict[int, Ratios]) -> list[str]:
    """The ratios as lines of text, one bar each, all to one scale; a mark stands where both are equally fast."""
    largest = max(ratio for ratios in curve.values() for ratio in ratios.values())
    columns_per_unit = BAR_COLUMNS / max(largest, 1.0)
    equal = round(columns_per_unit) - 1
    lines = [f"{'tokens':>6}  {'':6}{'':{equal}}| as fast as the plain sequence"]
    for tokens, ratios in curve.items():
        for name in OURS:
            ratio = ratios[name]
            bar = f"{'█' * round(ratio * columns_per_unit):{equal + 1}}"
            # Beyond the mark the bar itself shows that it is passed.
            bar = bar if bar[equal] == "█" else bar[:equal] + "|"
            lines.append(f"{tokens if name == OURS[0] else '':>6}  {name:6}{bar} {ratio:.2f}x")
    return lines


def main() -> None:
    """Measure and print the table and the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2**n for n in range(13)])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=41, help="for many tokens; few take up to 12 times as many"
    )
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    chosen = parser.parse_args()
    dtype = getattr(torch, chosen.dtype)
    cases = [
        Case(tokens, dtype, chosen.hidden, chosen.top_k, chosen.rounds * more_rounds(tokens))
        for tokens in chosen.tokens
    ]
    print(
        f"{chosen.ranks} ranks, hidden {chosen.hidden}, top-{chosen.top_k}, {chosen.dtype}; "
        f"medians of {cases[0].rounds} to {cases[-1].rounds} rounds in milliseconds, plain / ours"
    )
    print(f"tokens{'plain':>10}" + "".join(f"{name:>10}{'':7}" for name in OTHERS))
    run_ranks(lambda transport: on_rank(transport, cases), chosen.ranks, chosen.ranks, CPU)


if __name__ == "__main__":
    main()
