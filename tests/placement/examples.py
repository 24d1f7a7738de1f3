"""Small topologies, demands and traces for placement tests."""

from __future__ import annotations

import numpy as np

from wingspan.placement.demand import Demand
from wingspan.placement.topology import Topology
from wingspan.routing.statistics import RoutingStatistics, collect
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.workloads import workload


def topology(ranks: int, per_node: int, **changes) -> Topology:
    numbers = {
        "within_bytes_per_second": 300e9,
        "across_bytes_per_second": 45e9,
        "row_bytes": 14336,
        "expert_bytes": 88_080_384,
        "seconds_per_token": 1.2e-7,
    }
    return Topology(ranks, per_node, **(numbers | changes))


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


def demand(tokens: RoutingTrace, cluster: Topology) -> Demand:
    half = tokens.num_tokens // 2
    halves = [counted(tokens.take(part)) for part in (slice(0, half), slice(half, None))]
    return Demand.of(*halves, cluster, steps=len(np.unique(tokens.step_T)))


def exact_demand(tokens: RoutingTrace, cluster: Topology) -> Demand:
    """Nothing drawn towards independence: both halves are the whole trace."""
    whole = counted(tokens)
    return Demand.of(whole, whole, cluster, steps=2 * len(np.unique(tokens.step_T)))
