"""Whether to move: predicted gain over a horizon against the cost of the move. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wingspan.balance.planner import Proposal
from wingspan.schedule.rebalance_result import Decision


@dataclass(frozen=True)
class MoveCost:
    """What moving costs the steps, per byte that the busiest rank fetches.

    Args:
        bytes_per_second: the rate.
        basis: where it was measured, in words.
    """

    bytes_per_second: float
    basis: str

    def seconds(self, proposal: Proposal, expert_bytes: int) -> float:
        """Price all layers, one after another; the rank that fetches most sets the pace of each."""
        busiest = int(proposal.fetched_LR.max(axis=1).sum())
        return busiest * expert_bytes / self.bytes_per_second


def decide(
    proposal: Proposal,
    step: int,
    measured_imbalance: float,
    horizon_steps: int,
    cost: MoveCost,
    expert_bytes: int,
    *,
    forced: bool,
) -> Decision:
    """Weigh a proposal.

    Args:
        proposal: from the planner.
        step: now.
        measured_imbalance: of the ranks' rows, over the last reports.
        horizon_steps: steps over which the gain adds up.
        cost: of moving.
        expert_bytes: one expert's weights.
        forced: move whatever the gain (`every N`).
    """
    layers_L = np.any(proposal.fetched_LR > 0, axis=1)
    experts = int(proposal.fetched_LR.sum())
    gain = (proposal.present_seconds - proposal.predicted_seconds) * horizon_steps
    cost_seconds = cost.seconds(proposal, expert_bytes)
    if not experts:
        migrate, reason = False, "the present placement is the best one found"
    elif forced:
        migrate, reason = True, "asked for at this rhythm"
    elif gain > cost_seconds:
        migrate, reason = True, "gain exceeds cost"
    else:
        migrate, reason = False, "cost exceeds gain"
    return Decision(
        step=step,
        verdict="migrate" if migrate else "stay",
        reason=reason,
        imbalance_before=measured_imbalance,
        imbalance_present=proposal.imbalance_present,
        imbalance_predicted=proposal.imbalance_predicted,
        present_seconds=proposal.present_seconds,
        predicted_seconds=proposal.predicted_seconds,
        horizon_steps=horizon_steps,
        gain_seconds=gain,
        cost_seconds=cost_seconds,
        cost_basis=cost.basis,
        layers=int(layers_L.sum()),
        experts_moved=experts,
        moved_bytes=experts * expert_bytes,
    )
