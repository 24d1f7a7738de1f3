"""Step times made by hand, whose sums a reader can check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wingspan.schedule.step_load import StepLoad
from wingspan.simulate.serving.group import GroupSpec
from wingspan.simulate.serving.times import Array, GridTimes, StepTimes, Surface, one_batch_seconds


@dataclass(frozen=True)
class LinearTimes:
    """A step costs `fixed`, `token` per token of the fullest home, `context` per (sequence, context token)."""

    alike: ClassVar[bool] = True
    fixed: float = 0.01
    token: float = 0.001
    context: float = 0.0

    def prefill_seconds(self, fullest_tokens: float, mean_tokens: float, attended_tokens: float) -> float:
        return self.fixed + self.token * fullest_tokens + self.context * fullest_tokens * attended_tokens

    def seconds(self, load: StepLoad) -> float:
        return one_batch_seconds(self, load)

    def decode_seconds(self, fullest_sequences: float, mean_sequences: float, contexts_P: Array) -> Array:
        return self.fixed + self.token * fullest_sequences + self.context * fullest_sequences * contexts_P


def group(
    times: StepTimes | None = None,
    *,
    name: str = "prefill and decode",
    homes: int = 4,
    kv_tokens: int = 4000,
    sequences: int = 32,
    budget: int = 256,
) -> GroupSpec:
    return GroupSpec(name, times or LinearTimes(), homes, homes, kv_tokens, sequences, budget)


def grid_times() -> GridTimes:
    """A decode and a prefill surface shaped like a real group's: flat at small load, then rising."""
    sequences, contexts = np.array([1.0, 8, 64, 512]), np.array([128.0, 1024, 8192])
    tokens = np.array([1.0, 16, 256, 4096])
    decode_other = 0.01 + sequences[:, None] * 2e-5 + sequences[:, None] * contexts * 1e-8
    prefill_other = 0.01 + tokens[:, None] * 3e-5 + tokens[:, None] * contexts * 1e-9
    flat = np.zeros(len(contexts))
    return GridTimes(
        Surface(sequences, contexts, 0.002 + sequences[:, None] * 2e-6 + flat, decode_other),
        Surface(tokens, contexts, 0.002 + tokens[:, None] * 1e-5 + flat, prefill_other),
    )
