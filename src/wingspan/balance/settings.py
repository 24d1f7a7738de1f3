"""How live balancing behaves, and how a person says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wingspan.errors import InputError


@dataclass(frozen=True)
class Rebalance:
    """How a run balances; every rank has the same.

    Args:
        every_steps: plan and move at this rhythm whatever it gains; None: move when the gain exceeds the cost.
        beat_steps: steps from one exchange of loads to the next.
        answer_steps: steps from one look for the planner's answer to the next, between beats.
        half_life_steps: age at which a step's load counts half in the exponential mean that plans are made from.
        horizon_steps: steps over which a gain must repay the move; fewer where the run ends sooner.
        sample_tokens: choices per layer and beat that each rank reports whole, for co-activation.
        step_bytes: bytes that one rank sends or receives per step; None: a tenth of what its link carries in a step.
        arrival_seconds: how long nothing may arrive before a layer counts as lost.
        planning_seconds: how long a plan may take.
        silence_seconds: how long the planner's process may give no sign of life.
    """

    every_steps: int | None = None
    beat_steps: int = 8
    answer_steps: int = 2
    half_life_steps: int = 8
    horizon_steps: int = 256
    sample_tokens: int = 16
    step_bytes: int | None = None
    arrival_seconds: float = 10.0
    planning_seconds: float = 60.0
    silence_seconds: float = 30.0

    def horizon(self, steps_left: int | None) -> int:
        """Steps over which a gain is counted, where at most so many follow; None: nobody knows."""
        return self.horizon_steps if steps_left is None else min(self.horizon_steps, steps_left)

    def __post_init__(self) -> None:
        for name in (
            "every_steps",
            "beat_steps",
            "answer_steps",
            "half_life_steps",
            "horizon_steps",
            "step_bytes",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"rebalancing: {name} = {value}; use 1 or more")


def parse_rebalance(text: str) -> Rebalance | None:
    """`off` (None), `auto`, or `every N` (also `every:N`); raises `InputError` for anything else."""
    if text == "off":
        return None
    if text == "auto":
        return Rebalance()
    found = re.fullmatch(r"every[ :](\d+)", text)
    if found is None or int(found[1]) < 1:
        raise InputError(f'`rebalance` {text!r}: use auto, off or "every N" with N steps, as "every 50"')
    every = int(found[1])
    return Rebalance(every_steps=every, beat_steps=min(every, Rebalance.beat_steps))
