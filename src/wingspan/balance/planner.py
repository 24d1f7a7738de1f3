"""From the loads to a proposal: the one place that calls the placement planner. Pure; imports no torch.

Shapes: L MoE layers, E logical experts, G nodes, R ranks, S slots per rank, K experts per token, X sampled choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.balance.measured import Measured
from wingspan.placement.difference import fetched
from wingspan.placement.objective import Objective
from wingspan.placement.plan import Moving, plan
from wingspan.routing.load import imbalance
from wingspan.routing.statistics import RoutingStatistics, collect
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.placement import Placement
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What the planner is asked.

    Args:
        source_LEG: tokens per step by the node where they live: the exponential mean.
        recent_LE: tokens per step of the last few steps.
        sample_LXK: sampled choices, oldest first; None without any.
        present: the placement in use.
        choice: what each token picks.
        measured: ranks, links, what a row and a move cost.
        horizon_steps: over which a gain adds up.
    """

    source_LEG: Floats
    recent_LE: Floats
    sample_LXK: NDArray[np.int16] | None
    present: Placement
    choice: Choice
    measured: Measured
    horizon_steps: int


@dataclass(frozen=True)
class Proposal:
    """A placement, and what is expected of it beside the present one; seconds are per step, over all layers."""

    placement: Placement
    present_seconds: float
    predicted_seconds: float
    imbalance_present: float
    imbalance_predicted: float
    fetched_LR: NDArray[np.int64]
    """Experts that each rank must fetch."""


def propose(question: Question) -> Proposal:
    """Plan for the exponential mean; predict for it and for the last few steps, and keep the smaller gain."""
    objective, present = question.measured.objective(), question.present
    demand = _demand(question, objective)
    moving = Moving(steps=question.horizon_steps)
    chosen = plan(demand, objective, present.slots_per_rank, present, moving).placement
    outlooks = [
        (objective.cost(present.slots_LRS, load), objective.cost(chosen.slots_LRS, load), load)
        for load in (demand, Demand.of_load(question.recent_LE, question.choice))
    ]
    before, after, load = min(outlooks, key=lambda o: float(o[0].seconds_L.sum() - o[1].seconds_L.sum()))
    return Proposal(
        chosen,
        float(before.seconds_L.sum()),
        float(after.seconds_L.sum()),
        imbalance(objective.slot_rows(present.slots_LRS, load).sum(axis=2)),
        imbalance(objective.slot_rows(chosen.slots_LRS, load).sum(axis=2)),
        fetched(present.slots_LRS, chosen.slots_LRS),
    )


def _demand(question: Question, objective: Objective) -> Demand:
    """Load and sources as counted; which experts go together from the sample, where ranks are on several nodes."""
    choice, source_LEG = question.choice, question.source_LEG
    load_LE = source_LEG.sum(axis=2)
    sample_LXK = question.sample_LXK
    if objective.nodes == 1 or sample_LXK is None or sample_LXK.shape[1] < 2:
        return Demand(load_LE, choice, source_LEG)
    half = sample_LXK.shape[1] // 2
    parts = (sample_LXK[:, :half], sample_LXK[:, half:])
    earlier, later = (_counted(part, choice.count, objective.ranks) for part in parts)
    # The halves' comparison drops what they do not share: a small sample then says little, and does no harm.
    sampled = Demand.of(earlier, later, choice, objective.domains)
    scale_L = load_LE.sum(axis=1) / np.maximum(sampled.load_LE.sum(axis=1), 1)
    return Demand(load_LE, choice, source_LEG, sampled.company() * scale_L[:, None, None])


def _counted(sample_LXK: NDArray[np.int16], num_experts: int, num_ranks: int) -> RoutingStatistics:
    picks_XLK = sample_LXK.transpose(1, 0, 2)
    nowhere_X = np.zeros(len(picks_XLK), dtype=np.int32)
    trace = RoutingTrace(picks_XLK, nowhere_X, nowhere_X, nowhere_X, num_experts, num_ranks)
    return collect([trace], trace.num_tokens, num_windows=1)
