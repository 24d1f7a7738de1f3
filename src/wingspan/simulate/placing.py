"""Every strategy on one trace or load, each by its predicted step.

Strategies plan from the first half of the trace. The table is of the whole trace, as `simulate` predicts it. What a
plan has seen it serves well, also what was chance; so the verdict is of the later half alone (`evidence`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.layer import LayerSizes
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.placement.affinity import home_nodes, rehome
from wingspan.placement.balanced import balanced
from wingspan.placement.eplb import eplb_global, eplb_hierarchical, twins, without_twins
from wingspan.placement.limits import Limits, limits
from wingspan.placement.objective import Objective
from wingspan.placement.plan import Moving, plan
from wingspan.placement.simple import linear, random, round_robin
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.trace import RoutingTrace
from wingspan.simulate.evidence import of_load, of_trace, routing_of
from wingspan.simulate.placement_advice import ANEW, WITH_REQUESTS, advice
from wingspan.simulate.placement_score import PlacementScore, score
from wingspan.simulate.step import predict
from wingspan.specs.placement import Placement
from wingspan.specs.workload import RecordedRouting, routing_remarks
from wingspan.traffic.demand import Demand

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
        scores: by strategy, on the whole trace; may also hold `WITH_REQUESTS`.
        limits: of the trace's loads.
        advice: sentences for a person, of the later half.
        judged_on: what the advice is of, in words.
        remarks: what the routing leaves undecided, in sentences.
        eplb_twins: slots that the published rule filled with a replica its rank had already, by strategy.
        planned_tokens: tokens planned from.
        trace_tokens: tokens of the trace.
        step_tokens: tokens of a step, over all ranks.
    """

    placements: dict[str, Placement]
    scores: dict[str, PlacementScore]
    limits: Limits
    advice: list[str]
    judged_on: str
    remarks: tuple[str, ...]
    eplb_twins: dict[str, int]
    planned_tokens: int
    trace_tokens: int
    step_tokens: int


def objective_of(deployment: Deployment) -> Objective:
    """What a deployment's placements are judged by.

    Raises:
        InputError: ranks share experts.
    """
    shared = deployment.options.expert_tensor_parallel
    if shared > 1:
        raise InputError(
            f"expert_tensor_parallel {shared}: placements are judged for whole experts; set it to 1"
        )
    workload, model = deployment.workload, deployment.model
    shape = LayerSizes.of(model, deployment.precisions, workload.phase, dispatcher=deployment.sending)
    return Objective(deployment.used_cluster, shape, deployment.dispatcher)


PARTS = 4
"""How many parts `compare` has."""


def compare(
    deployment: Deployment,
    seen: RoutingTrace | RecordedLoad,
    *,
    present: Placement | None = None,
    moving: Moving | None = None,
    request_routing: bool = False,
    seed: int = 0,
    begins: Callable[[str], None] = lambda _part: None,
) -> Comparison:
    """See the file's head.

    Args:
        deployment: all but its placement's slots and its routing are used.
        seen: a trace whose tokens live on the deployment's ranks, or loads of its MoE layers.
        present: the placement in use.
        moving: when it pays to move from it.
        request_routing: score ours once more with requests living where their experts are. Each request's node
            follows from the first half of its tokens there, as after its prefill.
        seed: of the random strategy.
        begins: called with the name of each of `PARTS` parts before it is done.

    Raises:
        InputError: the trace is too short, or anything does not fit; or `request_routing` of loads, which know no
            requests.
    """
    begins("simple strategies")
    judge = _Judge(deployment, objective_of(deployment), present)
    objective, slots_per_rank = judge.objective, deployment.placement.experts_per_rank
    found = (
        of_load(seen, deployment)
        if isinstance(seen, RecordedLoad)
        else of_trace(seen, deployment, objective.domains)
    )
    if request_routing and found.whole.tokens is None:
        raise InputError("`request_routing`: loads do not say what each request picks; give a routing trace")
    demand = found.demand
    placements, eplb_twins = _placements(demand, objective, slots_per_rank, demand.choice.groups, seed)
    if present is not None:
        placements = {"present": present} | placements
        free = Moving(steps=10**9, noise=0.0)
        placements[ANEW] = plan(demand, objective, slots_per_rank, present, free).placement
    begins("ours")
    placements["ours"] = plan(demand, objective, slots_per_rank, present, moving).placement
    begins("what each sends")
    scores = judge.scores(placements, found.whole)
    chosen = _best(scores, objective, moving or Moving())
    placements["ours"], scores["ours"] = placements[chosen], scores[chosen]
    said = [name for name in ("present", "linear", "ours", ANEW) if name in placements]
    begins("on tokens that none has seen")
    unseen = judge.scores({name: placements[name] for name in said}, found.later)
    for result, routing in ((scores, found.whole), (unseen, found.later)) if request_routing else ():
        if routing.tokens is not None:
            routed = routing_of(_route_requests(routing.tokens, placements["ours"], objective))
            result[WITH_REQUESTS] = judge.scores({WITH_REQUESTS: placements["ours"]}, routed)[WITH_REQUESTS]
    limit = limits(found.load_LE, objective, slots_per_rank)
    return Comparison(
        placements,
        scores,
        limit,
        advice(limit, unseen, objective, slots_per_rank),
        found.judged_on,
        routing_remarks(found.whole),
        eplb_twins,
        planned_tokens=found.planned_tokens,
        trace_tokens=found.all_tokens,
        step_tokens=deployment.tokens,
    )


@dataclass(frozen=True)
class _Judge:
    """Scores placements by the predicted step of the deployment with them."""

    deployment: Deployment
    objective: Objective
    present: Placement | None

    def scores(self, placements: dict[str, Placement], routing: RecordedRouting) -> dict[str, PlacementScore]:
        """Score each placement, with the tokens or shares of `routing` in the mean step."""
        workload = self.deployment.workload.model_copy(update={"routing": routing, "fluctuating": False})
        deployment = self.deployment.model_copy(update={"workload": workload})
        expert_bytes = round(self.objective.shape.expert_bytes)
        return {
            name: score(predict(deployment, placement), expert_bytes, self.present)
            for name, placement in placements.items()
        }


def _best(scores: dict[str, PlacementScore], objective: Objective, moving: Moving) -> str:
    """The strategy with the least time over the horizon, its move included; ours where none is better.

    Ours decides layer by layer from statistics; a whole step, counted and overlapped, may see it otherwise.
    """

    def seconds(name: str) -> float:
        moved = scores[name].experts_moved
        if moved is None:
            return scores[name].step_seconds
        return scores[name].step_seconds * moving.steps + moved * objective.move_seconds_per_expert

    fastest = min((name for name in scores if name != ANEW), key=seconds)
    return fastest if seconds(fastest) < seconds("ours") * (1 - 1e-9) else "ours"


def _placements(
    demand: Demand, objective: Objective, slots_per_rank: int, groups: int, seed: int
) -> tuple[dict[str, Placement], dict[str, int]]:
    """The strategies beside ours, and the twins of the EPLB rules."""
    load, experts = demand.load_LE, demand.num_experts
    shape = (demand.num_layers, experts, objective.ranks, slots_per_rank)
    result = {
        "linear": linear(*shape),
        "round-robin": round_robin(*shape),
        "random": random(*shape, seed=seed),
    }
    rules = {"eplb": eplb_global(load, objective.ranks, slots_per_rank)}
    if objective.nodes > 1 and groups % objective.nodes == 0:
        rules["eplb-hierarchical"] = eplb_hierarchical(
            load, objective.ranks, slots_per_rank, objective.nodes, groups
        )
    result |= {name: without_twins(slots, experts) for name, slots in rules.items()}
    result["balanced"] = balanced(load, objective.ranks, slots_per_rank)
    return result, {name: twins(slots) for name, slots in rules.items()}


def _route_requests(scored: RoutingTrace, placement: Placement, objective: Objective) -> RoutingTrace:
    first = _first_half_of_requests(scored)
    return rehome(scored, home_nodes(scored.take(first), placement, objective), objective)


def _first_half_of_requests(trace: RoutingTrace) -> NDArray[np.bool_]:
    """Mask of the tokens that are in the first half of their request; a request's only token counts as such."""
    order = np.argsort(trace.request_T, kind="stable")
    ordered = trace.request_T[order]
    start, end = (np.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    mask = np.empty(trace.num_tokens, dtype=np.bool_)
    mask[order] = 2 * (np.arange(trace.num_tokens) - start) < end - start
    return mask
