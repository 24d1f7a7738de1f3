"""What live balancing reports: every decision, migration, rollback and loss, in the order they happened.

Decode steps count from 1; a thing that happened "at step n" happened right after it. Times are seconds, sizes bytes.
Imbalance is max / mean of the rows that ranks compute, per layer, then averaged over layers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult


class Decision(FrozenResult):
    """A plan was weighed."""

    kind: Literal["decision"] = "decision"
    step: int
    verdict: Literal["migrate", "stay"]
    reason: str
    imbalance_before: float = Field(description="measured over the last reports")
    imbalance_present: float = Field(
        description="predicted without moving; beside the measured one it tests the model"
    )
    imbalance_predicted: float = Field(description="predicted after moving")
    present_seconds: float = Field(description="predicted per step without moving: expert compute and links")
    predicted_seconds: float = Field(description="the same after moving")
    horizon_steps: int
    gain_seconds: float = Field(description="(present_seconds - predicted_seconds) x horizon_steps")
    cost_seconds: float
    cost_basis: str = Field(description="where the rate in the cost was measured")
    layers: int
    experts_moved: int
    moved_bytes: int


class Migrated(FrozenResult):
    """Experts were moved while steps went on; the second half was measured afterwards."""

    kind: Literal["migration"] = "migration"
    first_step: int
    last_step: int
    layers: int
    layers_rolled_back: int
    experts_moved: int
    moved_bytes: int
    added_seconds: float = Field(description="what it added to the steps meanwhile, in all")
    longest_step_seconds: float = Field(description="of the steps meanwhile, on rank 0")
    imbalance_before: float
    imbalance_after: float | None = Field(description="measured; None where the run ended at once")
    imbalance_predicted: float
    step_seconds_before: float = Field(description="median, on rank 0")
    step_seconds_after: float | None


class Rollback(FrozenResult):
    """A layer's experts did not arrive whole, so all ranks kept its old placement."""

    kind: Literal["rollback"] = "rollback"
    step: int
    layer: int
    expert: int
    source: int
    destination: int
    reason: str


class PlannerLost(FrozenResult):
    """The planner's process died or fell silent; another took its place unless `Stopped` follows."""

    kind: Literal["planner lost"] = "planner lost"
    step: int
    reason: str
    restarts: int


class Stopped(FrozenResult):
    """No more balancing in this run; the placement stays as it is."""

    kind: Literal["stopped"] = "stopped"
    step: int
    reason: str


RebalanceEvent = Annotated[
    Decision | Migrated | Rollback | PlannerLost | Stopped, Field(discriminator="kind")
]
