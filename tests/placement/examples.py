"""Small topologies, demands and traces for placement tests."""

from __future__ import annotations

import numpy as np

from wingspan.cost.compute import BatchRegime
from wingspan.cost.layer import LayerSizes
from wingspan.placement.objective import Objective
from wingspan.routing.statistics import RoutingStatistics, collect
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.workloads import workload
from wingspan.specs.cluster import Cluster, Gpu, Link
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.kernels import kernels_named
from wingspan.specs.placement import Placement
from wingspan.specs.precision import Precision
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice

HIDDEN, INTERMEDIATE = 7168, 2048


def objective(
    ranks: int,
    per_node: int,
    *,
    once_per_node: bool = True,
    seconds_per_token: float = 1.2e-7,
    seconds_per_expert: float = 0.0,
    within: float = 300e9,
    across: float = 45e9,
    row_bytes: float = 2 * HIDDEN,
    move_seconds: float = 88_080_384 / 45e9,
) -> Objective:
    """Plain numbers, no latencies: an expert takes the longer of reading its weights and computing its tokens."""
    shape = LayerSizes(
        HIDDEN, INTERMEDIATE, True, Precision.BF16, Precision.BF16, row_bytes, row_bytes, BatchRegime.SMALL
    )
    reading = shape.expert_bytes / seconds_per_expert if seconds_per_expert else 1e30
    gpu = Gpu(
        name="plain", peak_flops={Precision.BF16: 2 * shape.values / seconds_per_token}, mfu=1, memory_bytes=80e9,
        memory_bandwidth_bytes_per_second=reading, memory_bandwidth_utilisation=1,
    )  # fmt: skip
    links = [
        Link(bandwidth_bytes_per_second=rate, utilisation=1, latency_seconds=0) for rate in (within, across)
    ]
    cluster = Cluster(
        name="plain", nodes=ranks // per_node, gpus_per_node=per_node, gpu=gpu, scale_up=links[0],
        scale_up_domain_gpus=per_node, scale_out=links[1], kernels=kernels_named("ideal"),
    )  # fmt: skip
    kind = DispatcherKind.HIERARCHICAL if once_per_node else DispatcherKind.FLAT
    return Objective(cluster, shape, kind, move_seconds_per_expert=move_seconds)


def across_rows(placement: Placement, tokens: RoutingTrace, on: Objective) -> float:
    """Rows between nodes, one way, counted token by token."""
    return float(count_traffic(placement, tokens, on.cluster, on.dispatcher).links.scale_out_sent.sum())


def trace(kind: str, shape: TraceShape, seed: int = 0, **knobs) -> RoutingTrace:
    return concatenate(list(generate(shape, workload(kind, shape, seed, **knobs), seed)))


def random_trace(tokens: int, layers: int, experts: int, top_k: int, ranks: int, seed: int) -> RoutingTrace:
    """Uniform picks, homes at random, two steps."""
    rng = np.random.default_rng(seed)
    picks = rng.random((tokens, layers, experts)).argsort(axis=2)[..., :top_k]
    return RoutingTrace(
        picks.astype(np.int16),
        rng.integers(0, ranks, tokens).astype(np.int32),
        rng.integers(0, max(1, tokens // 4), tokens).astype(np.int32),
        (np.arange(tokens) * 2 // tokens).astype(np.int32),
        experts,
        ranks,
    )


def counted(tokens: RoutingTrace) -> RoutingStatistics:
    return collect([tokens], tokens.num_tokens, num_windows=1)


def demand(tokens: RoutingTrace, on: Objective) -> Demand:
    half = tokens.num_tokens // 2
    halves = [counted(tokens.take(part)) for part in (slice(0, half), slice(half, None))]
    return Demand.of(
        *halves, Choice(tokens.num_experts, tokens.top_k), on.domains, steps=len(np.unique(tokens.step_T))
    )


def exact_demand(tokens: RoutingTrace, on: Objective) -> Demand:
    """Nothing drawn towards independence: both halves are the whole trace."""
    whole = counted(tokens)
    return Demand.of(
        whole,
        whole,
        Choice(tokens.num_experts, tokens.top_k),
        on.domains,
        steps=2 * len(np.unique(tokens.step_T)),
    )
