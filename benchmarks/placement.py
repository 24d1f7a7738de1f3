"""Speed and quality of placement against the published EPLB rule, in one run, each line against its target.

    python -m benchmarks.placement [--trace trace.parquet --ranks-per-node 4]

58 MoE layers of 256 experts, as DeepSeek-V3. Times are processor time of one thread, the least of several calls:
set OMP_NUM_THREADS=1. Loads: log-normal with sigma 1 (the spread under which the rule's published imbalance
comes out), and Zipf with exponent 1, shuffled in each layer. The rule is `wingspan.placement.eplb`, which gives
the published example slot by slot; its time here is that of numpy, not of the original.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.layer import LayerSizes
from wingspan.placement.balanced import balanced, hottest_replica_bound
from wingspan.placement.difference import fetched
from wingspan.placement.eplb import eplb_global, eplb_hierarchical, twins, without_twins
from wingspan.placement.objective import Objective
from wingspan.placement.plan import Moving, plan
from wingspan.placement.simple import linear
from wingspan.routing.homes import spread_requests
from wingspan.routing.load import imbalance
from wingspan.routing.statistics import collect
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.trace_file import read_trace
from wingspan.routing.workloads import planted_groups, workload
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.models import load_model
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.workload import Context, Workload
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice

README_LOAD_LE = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    dtype=np.float64,
)
"""The example in the README of github.com/deepseek-ai/EPLB."""
LAYERS, EXPERTS, TOP_K, SLOTS = 58, 256, 8, 288
failures = 0


def line(what: str, measured: str, target: str, passed: bool | None) -> None:
    global failures
    failures += passed is False
    verdict = {True: "pass", False: "FAIL", None: ""}[passed]
    print(f"{what:<52} {measured:<44} {target:<22} {verdict}", flush=True)


def least_seconds(call: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def rank_imbalance(slots_LRS: NDArray[np.int64], load_LE: NDArray[np.float64]) -> float:
    """max / mean of rank loads, mean over layers; an expert's load shared evenly by its slots."""
    held = slots_LRS != EMPTY
    layer = np.broadcast_to(np.arange(len(load_LE))[:, None, None], slots_LRS.shape)
    counts_LE = np.zeros(load_LE.shape)
    np.add.at(counts_LE, (layer[held], slots_LRS[held]), 1.0)
    per_slot = np.where(held, (load_LE / counts_LE)[layer, np.where(held, slots_LRS, 0)], 0.0)
    return imbalance(per_slot.sum(axis=2))


def loads() -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    zipf = np.tile(1 / np.arange(1.0, EXPERTS + 1), (LAYERS, 1))
    return {
        "log-normal": rng.lognormal(0, 1, (LAYERS, EXPERTS)),
        "zipf 1.0": rng.permuted(zipf, axis=1),
    }


def example() -> None:
    print("\nThe rule's own example: 2 layers x 12 experts, 16 slots on 8 ranks")
    ours, rule = (
        rank_imbalance(slots, README_LOAD_LE)
        for slots in (balanced(README_LOAD_LE, 8, 2).slots_LRS, eplb_global(README_LOAD_LE, 8, 2))
    )
    line("imbalance", f"{ours:.4f}; EPLB rule {rule:.4f}", "<= the rule's", ours <= rule + 1e-9)


def packing() -> None:
    print(f"\nLoad-only packing: {LAYERS} layers x {EXPERTS} experts, {SLOTS} slots")
    at_most = {("log-normal", 32): 1.001, ("log-normal", 72): 1.006}
    for name, load in loads().items():
        for ranks in (32, 72, 144):
            slots = SLOTS // ranks
            ours, rule = balanced(load, ranks, slots).slots_LRS, eplb_global(load, ranks, slots)
            seconds = least_seconds(lambda load=load, r=ranks, s=slots: balanced(load, r, s), 7)
            rule_seconds = least_seconds(lambda load=load, r=ranks, s=slots: eplb_global(load, r, s), 2)
            where = f"{name}, {ranks} ranks x {slots}:"
            line(
                f"{where} time",
                f"{seconds * 1e3:.0f} ms; EPLB rule {rule_seconds * 1e3:.0f} ms ({rule_seconds / seconds:.1f} x)",
                "< 60 ms",
                seconds < 0.060,
            )
            reached, rules = rank_imbalance(ours, load), rank_imbalance(rule, load)
            bound = float(hottest_replica_bound(load, ranks, slots).mean())
            text = f"{reached:.4f}; EPLB rule {rules:.4f}; bound {bound:.4f}"
            if (name, ranks) in at_most:
                target = at_most[name, ranks]
                line(f"{where} imbalance", text, f"<= {target}", reached <= target)
            else:
                line(f"{where} imbalance", text, "<= 1.0005 x bound", reached <= 1.0005 * bound)
            line(
                f"{where} replicas twice on a rank",
                f"{twins(ours)}; EPLB rule {twins(rule)}",
                "0",
                twins(ours) == 0,
            )
        grouped = eplb_hierarchical(load, 32, 9, 4, 8)
        line(
            f"{name}, 32 ranks: hierarchical EPLB, 4 nodes, 8 groups",
            f"imbalance {rank_imbalance(grouped, load):.4f}, {twins(grouped)} replicas twice on a rank",
            "(for comparison)",
            None,
        )


def h100(ranks: int, ranks_per_node: int) -> Objective:
    """DeepSeek-V3's experts on H100 nodes, in decode: the presets deepseek-v3 and h100-sxm."""
    model = load_model("deepseek-v3")
    precisions = Workload(tokens_per_gpu=64, context=Context(mean_tokens=4096)).precisions(model)
    cluster = load_cluster("h100-sxm").with_nodes(ranks // ranks_per_node, ranks_per_node)
    dispatcher = DispatcherKind.HIERARCHICAL
    return Objective(cluster, LayerSizes.of(model, precisions, "decode", dispatcher=dispatcher), dispatcher)


def drawn(kind: str, ranks: int, tokens: int, **knobs: float) -> RoutingTrace:
    shape = TraceShape(tokens, LAYERS, EXPERTS, TOP_K, ranks, request_tokens=8)
    return concatenate(list(generate(shape, workload(kind, shape, 0, **knobs), 0)))


def demand_of(trace: RoutingTrace, cluster: Objective) -> Demand:
    half = trace.num_tokens // 2
    pieces = [trace.take(slice(0, half)), trace.take(slice(half, None))]
    counts = [collect([piece], piece.num_tokens, num_windows=1) for piece in pieces]
    return Demand.of(*counts, Choice(EXPERTS, TOP_K), cluster.domains, len(np.unique(trace.step_T)))


def with_noise(demand: Demand, noise: float, seed: int) -> Demand:
    factor = np.exp(noise * np.random.default_rng(seed).standard_normal(demand.load_LE.shape))
    pairs = np.sqrt(factor[:, :, None] * factor[:, None, :])
    return Demand(
        demand.load_LE * factor,
        demand.choice,
        demand.source_LEG * factor[:, :, None],
        demand.together_LEE * pairs,
    )


def full_plan() -> None:
    cluster = h100(320, 8)
    print(f"\nFull plan: {LAYERS} x {EXPERTS} on 320 ranks of 40 nodes, one slot per rank (64 spare ranks)")
    trace = drawn("log-normal", 320, 12_000)
    demand = demand_of(trace, cluster)
    found = plan(demand, cluster)
    fresh = least_seconds(lambda: plan(demand, cluster), 3)
    line("from nothing", f"{fresh:.2f} s", "< 2 s", fresh < 2)
    changed = with_noise(demand, 0.2, 1)
    again = least_seconds(lambda: plan(changed, cluster, present=found.placement), 3)
    line("from a present placement, loads 20 % off", f"{again:.2f} s", "< 2 s", again < 2)
    stickiness(demand, cluster, found.placement)
    narrow = h100(32, 8)
    demand = demand_of(spread_requests(trace, 32), narrow)
    stickiness(demand, narrow, plan(demand, narrow, 9).placement)


def stickiness(demand: Demand, cluster: Objective, present: Placement) -> None:
    moving = Moving()
    slots = present.slots_per_rank
    print(f"\nStickiness, {cluster.ranks} ranks x {slots}: horizon {moving.steps} steps")
    ours, rule = 0, 0
    before = eplb_global(demand.load_LE, cluster.ranks, slots)
    for seed in range(3):
        noisy = with_noise(demand, 0.01, seed)
        ours += int(plan(noisy, cluster, slots, present, moving).moved_L.sum())
        rule += int(fetched(before, eplb_global(noisy.load_LE, cluster.ranks, slots)).sum())
    line(
        f"1 % noise: experts moved, of {3 * before.size:,} in 3 draws",
        f"{ours}; EPLB rule {rule:,} ({rule / before.size / 3:.0%})",
        "0",
        ours == 0,
    )
    noisy = with_noise(demand, 0.2, 1)
    again = plan(noisy, cluster, slots, present, moving)
    kept = cluster.seconds_L(present.slots_LRS, noisy)
    gain_L = (kept - again.seconds_L) * moving.steps
    cost_L = again.moved_L * cluster.move_seconds_per_expert
    line(
        "20 % noise: gain over the horizon, cost of moving",
        f"{again.moved_L.sum()} moved, gain {gain_L.sum() * 1e3:.0f} ms, cost {cost_L.sum() * 1e3:.0f} ms",
        "gain > cost, each layer",
        bool((gain_L >= cost_L).all()),
    )
    rule_moves = fetched(before, eplb_global(noisy.load_LE, cluster.ranks, slots)).sum()
    line("20 % noise: experts moved by the EPLB rule", f"{rule_moves:,}", "(for comparison)", None)


def communities() -> None:
    cluster = h100(256, 8)
    print("\nPlanted communities: 32 groups of 8 experts, 256 ranks of 32 nodes, scored on later tokens")
    for noise in (0.0, 0.1, 0.3):
        trace = drawn("communities", 256, 12_000, groups=32, noise=noise)
        shape = TraceShape(12_000, LAYERS, EXPERTS, TOP_K, 256, request_tokens=8)
        order = np.argsort(planted_groups(shape, 0, 32), axis=1, kind="stable")
        half = trace.num_tokens // 2
        demand = demand_of(trace.take(slice(0, half)), cluster)
        ours = plan(demand, cluster).placement
        later = trace.take(slice(half, None))
        placements = {
            "ours": ours,
            "planted": Placement(order[:, :, None], EXPERTS),
            "linear": linear(LAYERS, EXPERTS, 256),
            "EPLB rule": without_twins(eplb_global(demand.load_LE, 256, 1), EXPERTS),
        }
        across = {n: _across_rows(p, later, cluster).sum() for n, p in placements.items()}
        ratios = [f"{n} {across[n] / across['planted']:.3f}" for n in ("ours", "EPLB rule", "linear")]
        line(
            f"noise {noise:.0%}: rows over the planted optimum's",
            "; ".join(ratios),
            "ours <= 1.05",
            across["ours"] <= 1.05 * across["planted"],
        )


def _across_rows(placement: Placement, trace: RoutingTrace, cluster: Objective) -> NDArray[np.float64]:
    """Rows that each rank receives from other nodes, over all layers."""
    links = count_traffic(placement, trace, cluster.cluster, cluster.dispatcher).links
    return links.scale_out_received.sum(axis=0)


def recorded(path: Path, ranks_per_node: int) -> None:
    """The cut on a recorded trace, node by node: planned on its first half, counted on its second."""
    trace = read_trace(path)
    ranks = -(-trace.num_experts // ranks_per_node) * ranks_per_node
    trace = spread_requests(trace, ranks)
    cluster = h100(ranks, ranks_per_node)
    half = trace.num_tokens // 2
    demand, later = demand_of(trace.take(slice(0, half)), cluster), trace.take(slice(half, None))
    rows = {}
    for name, placement in {
        "linear": linear(trace.num_layers, trace.num_experts, ranks),
        "EPLB rule": without_twins(eplb_global(demand.load_LE, ranks, 1), trace.num_experts),
        "ours": plan(demand, cluster).placement,
    }.items():
        rows[name] = _across_rows(placement, later, cluster).reshape(cluster.nodes, -1).sum(axis=1)
    print(
        f"\n{path}: rows into each node, {cluster.nodes} nodes x {ranks_per_node}, {later.num_tokens:,} later tokens"
    )
    for name, into_N in rows.items():
        share = into_N.sum() / rows["linear"].sum()
        line(name, "  ".join(f"{n:,}" for n in into_N.tolist()), f"{share:.3f} x linear", None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="a recorded trace, for the cut node by node")
    parser.add_argument("--ranks-per-node", type=int, default=4)
    arguments = parser.parse_args()
    packing()
    example()
    full_plan()
    communities()
    if arguments.trace:
        recorded(arguments.trace, arguments.ranks_per_node)
    print(f"\n{failures} of the targets missed" if failures else "\nall targets met")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
