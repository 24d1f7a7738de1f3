"""One claim of the seed and what comes out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One row: what the seed says, and what comes out."""

    claim: str
    said: str
    computed: float
    unit: str
    holds: bool
    conditions: list[str]
