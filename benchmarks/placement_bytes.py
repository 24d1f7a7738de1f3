"""Placement on a real network: the bytes that the kernel counts between nodes, against the planner's prediction.

`python -m benchmarks.placement_bytes` (root and Linux: it builds a testbed of its own and removes it).

Tokens pick experts from planted communities. The planner sees one part of the trace; the ranks then send another part
of it, whole, through the hierarchical dispatcher, with the experts in linear order and as our planner puts them.
The prediction is `count_traffic`'s: one row per (token, other node), there and back.
"""

from __future__ import annotations

import argparse
import os

# The nodes have no name service; torch would warn of it once per rank.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch

from benchmarks.hierarchical import settled_bytes
from wingspan.balance.measured import Measured
from wingspan.placement.objective import Objective
from wingspan.placement.plan import plan
from wingspan.placement.simple import linear
from wingspan.routing.statistics import collect
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.workloads import workload
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.testbed import network
from wingspan.testbed.layout import Layout, make_layout
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice

CPU = torch.device("cpu")
HIERARCHICAL = DispatchOptions(DispatcherKind.HIERARCHICAL)


def trace_of(shape: TraceShape, noise: float, seed: int) -> RoutingTrace:
    """Tokens of the same planted communities; another seed draws other tokens."""
    return concatenate(list(generate(shape, workload("communities", shape, 0, noise=noise), seed)))


def demand_of(trace: RoutingTrace, objective: Objective) -> Demand:
    """Planned from the two halves of a trace of one step."""
    half = trace.num_tokens // 2
    earlier, later = (trace.take(part) for part in (slice(0, half), slice(half, None)))
    counts = [collect([piece], piece.num_tokens, num_windows=1) for piece in (earlier, later)]
    return Demand.of(*counts, Choice(trace.num_experts, trace.top_k), objective.domains)


def across_bytes(placement: Placement, trace: RoutingTrace, objective: Objective) -> float:
    """Between nodes, there and back."""
    rows = count_traffic(placement, trace, objective.cluster, objective.dispatcher).links.scale_out_sent.sum()
    return float(rows * (objective.shape.out_row_bytes + objective.shape.back_row_bytes))


@torch.inference_mode()
def send(transport: Transport, layout: Layout, placement: Placement, trace: RoutingTrace, hidden: int) -> int:
    """Collective: every rank's tokens through every layer, there and back; the bytes that all nodes sent."""
    shared = SharedMemoryTransport(transport)
    dispatchers = Dispatchers(placement, shared, Buffers(), CPU, HIERARCHICAL)
    own = torch.from_numpy(trace.experts_TLK[trace.home_rank_T == transport.world.rank]).long()
    x_TD = torch.ones(len(own), hidden, dtype=torch.bfloat16)
    before = settled_bytes(transport, layout)
    for layer in range(placement.num_layers):
        dispatcher = dispatchers.for_layer(layer)
        weights_TK = torch.full(own[:, layer].shape, 1 / own.shape[2])
        (route,) = dispatcher.route(x_TD, own[:, layer], weights_TK, chunks=1, lane=0)
        received = dispatcher.send(route).wait()
        dispatcher.send_back(received.rows_ND, received.handle).wait()
    spent = settled_bytes(transport, layout) - before
    shared.close()
    return spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=16384, help="tokens that are sent, over all ranks")
    parser.add_argument("--hidden", type=int, default=512, help="values of a row, in BF16")
    parser.add_argument("--rate", default="1gbit", help="each node's link")
    arguments = parser.parse_args()
    layout = make_layout("bench_placement", 4, 4, arguments.rate)
    places = layout.places
    shape = TraceShape(arguments.tokens, layers=4, experts=16, top_k=4, ranks=places.size)
    objective = Measured(
        ranks=places.size,
        ranks_per_node=4,
        within_bytes_per_second=100e9,
        across_bytes_per_second=layout.rate_bits / 8,
        row_bytes=2 * arguments.hidden,
        seconds_per_row=1e-7,
        move_seconds=8e-3,
        dispatcher=DispatcherKind.HIERARCHICAL,
    ).objective()
    print(
        f"4 nodes x 4 ranks, {arguments.rate}; 4 layers of 16 experts, top-4, one per rank; {arguments.tokens} tokens"
    )
    print(f"{'noise':>5} {'placement':9} {'predicted MB':>12} {'kernel MB':>10} {'ratio':>7}")
    network.up(layout)
    try:
        for noise in (0.0, 0.1, 0.3):
            planned, sent = trace_of(shape, noise, 1), trace_of(shape, noise, 2)
            ours = plan(demand_of(planned, objective), objective).placement
            placements = {"linear": linear(4, 16, places.size), "ours": ours}
            table = [
                (name, placement, across_bytes(placement, sent, objective))
                for name, placement in placements.items()
            ]

            def on_rank(
                transport: Transport, table: list = table, sent: RoutingTrace = sent, noise: float = noise
            ) -> None:
                fallen = []
                for name, placement, expected in table:
                    kernel = send(transport, layout, placement, sent, arguments.hidden)
                    fallen.append((expected, kernel))
                    if transport.world.rank == 0:
                        print(
                            f"{noise:5.0%} {name:9} {expected / 1e6:12.2f} "
                            f"{kernel / 1e6:10.2f} {kernel / expected:7.4f}"
                        )
                if transport.world.rank == 0:
                    falls = [1 - ours / linear for linear, ours in zip(*fallen, strict=True)]
                    print(f"      bytes fall by {falls[0]:.2%} predicted, {falls[1]:.2%} counted", flush=True)

            run_ranks(on_rank, places.size, places.ranks_per_node, CPU, places)
    finally:
        network.down(layout.name)


if __name__ == "__main__":
    main()
