"""Hierarchical against flat dispatch over a real, slow network: bytes as the kernel counts them, and time.

`python -m benchmarks.hierarchical` (root and Linux: it builds a testbed of its own and removes it).

Both dispatchers run in one group over shared memory inside the nodes and gloo across; rounds are interleaved, and
their results compared. Beside the kernel's bytes stands the distinct-node formula: a token with k of E experts,
uniformly drawn, needs a given other node of G with probability 1 - C(E - E/G, k) / C(E, k).

Printed per batch: bytes that all nodes sent per dispatch + combine, over the formula's, and the time of a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from math import comb

# The nodes have no name service; torch would warn of it once per rank.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch

from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.testbed import counters, network
from wingspan.testbed.layout import Layout, make_layout

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One batch size."""

    tokens: int
    hidden: int
    experts: int
    top_k: int
    rounds: int

    @property
    def row_bytes(self) -> int:
        """BF16 rows."""
        return self.hidden * torch.bfloat16.itemsize

    def formula_bytes(self, layout: Layout, kind: str) -> float:
        """Bytes that all nodes send in one dispatch and combine."""
        tokens, others = self.tokens * layout.places.size, layout.nodes - 1
        if kind == "flat":
            rows = self.top_k * others / layout.nodes
        else:
            away = self.experts - self.experts // layout.nodes
            rows = others * (1 - comb(away, self.top_k) / comb(self.experts, self.top_k))
        return 2 * tokens * rows * self.row_bytes


@torch.inference_mode()
def on_rank(transport: Transport, layout: Layout, cases: list[Case]) -> None:
    shared = SharedMemoryTransport(transport)
    for case in cases:
        placement = linear(1, case.experts, layout.places.size, -(-case.experts // layout.places.size))
        contestants = {
            kind.value: Dispatchers(placement, shared, Buffers(), CPU, DispatchOptions(kind)).for_layer(0)
            for kind in (DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL)
        }
        measure(transport, layout, contestants, case)


def measure(transport: Transport, layout: Layout, contestants: dict[str, Dispatcher], case: Case) -> None:
    generator = torch.Generator().manual_seed(transport.world.rank)
    x_TD = torch.randn(case.tokens, case.hidden, generator=generator).to(torch.bfloat16)
    experts_TK = torch.rand(case.tokens, case.experts, generator=generator).topk(case.top_k).indices
    weights_TK = torch.rand(case.tokens, case.top_k, generator=generator)
    seconds: dict[str, list[float]] = {kind: [] for kind in contestants}
    sent: dict[str, list[int]] = {kind: [] for kind in contestants}
    for _ in range(case.rounds + 1):
        results = {}
        for kind, dispatcher in contestants.items():
            before = settled_bytes(transport, layout)
            start = time.perf_counter()
            (route,) = dispatcher.route(x_TD, experts_TK, weights_TK, chunks=1, lane=0)
            received = dispatcher.send(route).wait()
            results[kind] = dispatcher.send_back(received.rows_ND, received.handle).wait()
            spent = time.perf_counter() - start
            slowest = transport.share(torch.tensor([spent], dtype=torch.float64)).max()
            seconds[kind].append(float(slowest))
            sent[kind].append(settled_bytes(transport, layout) - before)
        # BF16 sums in another order.
        torch.testing.assert_close(results["flat"], results["hierarchical"], rtol=3e-2, atol=3e-2)
    # What the rounds' own barriers send, taken off.
    idle = settled_bytes(transport, layout)
    transport.share(torch.zeros(1, dtype=torch.float64))
    idle = settled_bytes(transport, layout) - idle
    if transport.world.rank == 0:
        show(case, layout, seconds, {kind: [n - idle for n in each] for kind, each in sent.items()})


def settled_bytes(transport: Transport, layout: Layout) -> int:
    """What all nodes have sent so far, read by rank 0 while all ranks wait."""
    transport.share(torch.zeros(1))
    total = 0
    if transport.world.rank == 0:
        time.sleep(0.05)  # the last acknowledgements
        total = sum(link.sent_bytes for link in counters.read(layout))
    transport.share(torch.zeros(1))
    return total


def show(case: Case, layout: Layout, seconds: dict[str, list[float]], sent: dict[str, list[int]]) -> None:
    time_of = {kind: statistics.median(each[1:]) for kind, each in seconds.items()}
    bytes_of = {kind: statistics.median(each[1:]) for kind, each in sent.items()}
    for kind in seconds:
        formula = case.formula_bytes(layout, kind)
        print(
            f"{case.tokens:6} {kind:13}{bytes_of[kind] / 1e6:10.3f}{formula / 1e6:10.3f}"
            f"{bytes_of[kind] / formula:9.4f}{time_of[kind] * 1e3:10.1f}"
            f"{formula / layout.nodes / (layout.rate_bits / 8) * 1e3:10.1f}",
            flush=True,
        )
    print(
        f"{'':7}flat / hierarchical: bytes {bytes_of['flat'] / bytes_of['hierarchical']:.3f} "
        f"(formula {case.formula_bytes(layout, 'flat') / case.formula_bytes(layout, 'hierarchical'):.3f}), "
        f"time {time_of['flat'] / time_of['hierarchical']:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--ranks-per-node", type=int, default=4)
    parser.add_argument("--rate", default="400mbit")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 128, 512])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    layout = make_layout("bench_hierarchical", chosen.nodes, chosen.ranks_per_node, chosen.rate)
    cases = [
        Case(tokens, chosen.hidden, chosen.experts, chosen.top_k, chosen.rounds) for tokens in chosen.tokens
    ]
    places = layout.places
    print(
        f"{layout.nodes} nodes x {layout.ranks_per_node} ranks, {chosen.rate}; hidden {chosen.hidden} in BF16, "
        f"top-{chosen.top_k} of {chosen.experts}; {chosen.rounds} rounds, medians"
    )
    print("tokens how          kernel MB formula MB    ratio   time ms  at full rate")
    network.up(layout)
    try:
        run_ranks(
            lambda transport: on_rank(transport, layout, cases),
            places.size,
            places.ranks_per_node,
            CPU,
            places,
        )
    finally:
        network.down(layout.name)


if __name__ == "__main__":
    main()
