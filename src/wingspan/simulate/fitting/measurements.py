"""What was measured on an engine, and what the same would be under a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from wingspan.specs.engines import EngineKind, EngineProfile


class Quantity(StrEnum):
    """What is measured and predicted."""

    TPOT = "time per output token"
    TTFT = "time to first token"
    OUTPUT = "output tokens/s"
    STEP = "step"
    LAYERS = "its layers"


@dataclass(frozen=True)
class Measurement:
    """One load or one step.

    Args:
        source: the file.
        described: the load in a few words.
        figures: each in seconds, or tokens a second.
        repeated: how often it was measured, in words; figures are medians then.
        remarks: what of the file was assumed or not used.
    """

    source: str
    described: str
    figures: dict[Quantity, float]
    repeated: str = ""
    remarks: tuple[str, ...] = field(default=())


class Predictor(Protocol):
    """Predicts what was measured on one deployment."""

    @property
    def measured(self) -> Sequence[Measurement]:
        """What was measured, one after another."""
        ...

    def predicted(self, engine: EngineKind | EngineProfile) -> list[dict[Quantity, float]]:
        """The same figures of each, with this engine around the deployment."""
        ...
