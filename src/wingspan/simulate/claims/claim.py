"""One claim of the reference model and what comes out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One row: what is claimed, and what comes out.

    Args:
        computed: at the reference point, or of the sizes alone.
        holds: there.
        fits: whether a GPU's memory holds the reference point; None where no step is judged.
        own: the same figure at the claims' own point, with attention replicated; None where it has none.
        own_fits: whether that point fits; None where there is none.
    """

    claim: str
    said: str
    computed: float
    unit: str
    holds: bool
    conditions: list[str]
    fits: bool | None = None
    own: float | None = None
    own_fits: bool | None = None
