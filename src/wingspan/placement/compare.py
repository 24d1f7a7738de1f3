"""Every strategy on one trace: plan on the first half, score on the second.

What a plan has seen it serves well, also what was chance; only later tokens tell whether it will.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.placement.affinity import home_nodes, rehome
from wingspan.placement.balanced import balanced
from wingspan.placement.demand import Demand
from wingspan.placement.eplb import eplb_global, eplb_hierarchical, twins, without_twins
from wingspan.placement.limits import ANEW, WITH_REQUESTS, Limits, advice, limits
from wingspan.placement.placement import Placement
from wingspan.placement.plan import Moving, plan
from wingspan.placement.score import PlacementScore, score
from wingspan.placement.simple import linear, random, round_robin
from wingspan.placement.topology import Topology
from wingspan.routing.statistics import RoutingStatistics, collect
from wingspan.routing.trace import RoutingTrace

STRATEGIES = (
    "linear",
    "round-robin",
    "random",
    "eplb",
    "eplb-hierarchical",
    "balanced",
    "ours",
    "present",
    ANEW,
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """All strategies' placements and their scores by name, and what is to be said about them.

    Attributes:
        placements: by strategy; where there is one in use, that first as `present`, and `ANEW` besides ours.
        scores: by strategy, on the second half of the trace; may also hold `WITH_REQUESTS`.
        limits: of the second half's loads.
        advice: sentences for a person.
        eplb_twins: slots that the published rule filled with a replica its rank had already, by strategy.
        planned_tokens: tokens planned from.
        scored_tokens: tokens scored on.
        step_tokens: tokens of a step, over all ranks.
    """

    placements: dict[str, Placement]
    scores: dict[str, PlacementScore]
    limits: Limits
    advice: list[str]
    eplb_twins: dict[str, int]
    planned_tokens: int
    scored_tokens: int
    step_tokens: float


def compare(
    trace: RoutingTrace,
    topology: Topology,
    slots_per_rank: int,
    *,
    groups: int = 1,
    present: Placement | None = None,
    moving: Moving | None = None,
    request_routing: bool = False,
    step_tokens: float | None = None,
    seed: int = 0,
) -> Comparison:
    """See the file's head.

    Args:
        trace: its tokens live on ranks of `topology`.
        topology: of the cluster.
        slots_per_rank: slots per (layer, rank).
        groups: of experts, for the hierarchical EPLB rule; 1 for none.
        present: the placement in use.
        moving: when it pays to move from it.
        request_routing: score ours once more with requests living where their experts are. Each request's node
            follows from the first half of its tokens there, as after its prefill.
        step_tokens: tokens of a step over all ranks (default: of the trace's mean step).
        seed: of the random strategy.

    Raises:
        InputError: the trace is too short, or anything does not fit.
    """
    earlier, later, scored = _split(trace)
    planned = (earlier, later)
    halves = [_count(half) for half in planned]
    step_tokens = step_tokens or scored.num_tokens / len(np.unique(scored.step_T))
    steps = scored.num_tokens / step_tokens
    demand = Demand.of(halves[0], halves[1], topology, sum(half.num_tokens for half in planned) / step_tokens)
    placements, eplb_twins = _placements(demand, topology, slots_per_rank, groups, seed)
    if present is not None:
        placements = {"present": present} | placements
        free = Moving(steps=10**9, noise=0.0)
        placements[ANEW] = plan(demand, topology, slots_per_rank, present, free).placement
    placements["ours"] = plan(demand, topology, slots_per_rank, present, moving).placement
    scores = {
        name: score(placement, scored, topology, present, steps) for name, placement in placements.items()
    }
    limit = limits(_count(scored).load_LE / steps, topology, slots_per_rank)
    if request_routing:
        routed = _route_requests(scored, placements["ours"], topology)
        scores[WITH_REQUESTS] = score(placements["ours"], routed, topology, present, steps)
    return Comparison(
        placements,
        scores,
        limit,
        advice(limit, scores, topology, slots_per_rank),
        eplb_twins,
        planned_tokens=earlier.num_tokens + later.num_tokens,
        scored_tokens=scored.num_tokens,
        step_tokens=step_tokens,
    )


def _placements(
    demand: Demand, topology: Topology, slots_per_rank: int, groups: int, seed: int
) -> tuple[dict[str, Placement], dict[str, int]]:
    """The strategies beside ours, and the twins of the EPLB rules."""
    load, experts = demand.load_LE, demand.num_experts
    shape = (demand.num_layers, experts, topology.ranks, slots_per_rank)
    result = {
        "linear": linear(*shape),
        "round-robin": round_robin(*shape),
        "random": random(*shape, seed=seed),
    }
    rules = {"eplb": eplb_global(load, topology.ranks, slots_per_rank)}
    if topology.nodes > 1 and groups % topology.nodes == 0:
        rules["eplb-hierarchical"] = eplb_hierarchical(
            load, topology.ranks, slots_per_rank, topology.nodes, groups
        )
    result |= {name: without_twins(slots, experts) for name, slots in rules.items()}
    result["balanced"] = balanced(load, topology.ranks, slots_per_rank)
    return result, {name: twins(slots) for name, slots in rules.items()}


def _route_requests(scored: RoutingTrace, placement: Placement, topology: Topology) -> RoutingTrace:
    first = _first_half_of_requests(scored)
    return rehome(scored, home_nodes(scored.take(first), placement, topology), topology)


def _first_half_of_requests(trace: RoutingTrace) -> NDArray[np.bool_]:
    """Mask of the tokens that are in the first half of their request; a request's only token counts as such."""
    order = np.argsort(trace.request_T, kind="stable")
    ordered = trace.request_T[order]
    start, end = (np.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    mask = np.empty(trace.num_tokens, dtype=np.bool_)
    mask[order] = 2 * (np.arange(trace.num_tokens) - start) < end - start
    return mask


def _split(trace: RoutingTrace) -> tuple[RoutingTrace, RoutingTrace, RoutingTrace]:
    """Two quarters to plan from and a half to score on, cut between steps where there are at least four."""
    if trace.num_tokens < 4:
        raise InputError(f"routing trace: {trace.num_tokens} tokens; planning and scoring need at least 4")
    starts = np.flatnonzero(np.diff(trace.step_T)) + 1
    places = starts if len(starts) >= 3 else np.arange(1, trace.num_tokens)
    quarter, half = (int(places[np.abs(places - trace.num_tokens * f).argmin()]) for f in (0.25, 0.5))
    if quarter == half:
        quarter = half // 2
    return (
        trace.take(slice(0, quarter)),
        trace.take(slice(quarter, half)),
        trace.take(slice(half, None)),
    )


def _count(trace: RoutingTrace) -> RoutingStatistics:
    return collect([trace], trace.num_tokens, num_windows=1)
