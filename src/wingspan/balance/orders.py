"""What the controller tells the ranks to do, and what it hears of how that went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wingspan.schedule.rebalance_result import Rollback
from wingspan.specs.placement import Placement


@dataclass(frozen=True)
class Order:
    """Rank 0's word to all: where to go, and how fast.

    Args:
        target: the placement to reach.
        step_bytes: the most that one rank sends, and the most that it receives, per step.
        arrival_seconds: how long nothing may arrive before a layer counts as lost.
    """

    target: Placement
    step_bytes: int
    arrival_seconds: float


@dataclass(frozen=True)
class MigrationOutcome:
    """How an order was carried out.

    Args:
        first_step: the step after which it began.
        layers: how many were committed.
        rollbacks: one for each layer that was given up.
        experts_moved: over all ranks and committed layers.
        busiest_experts: what the rank that fetched most fetched, summed over committed layers.
    """

    first_step: int
    layers: int
    rollbacks: Sequence[Rollback]
    experts_moved: int
    busiest_experts: int
