"""The constants of a profile that can be fitted, and which of them measurements tell apart.

Shapes: F figures, N terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_WORST_CONDITION = 30.0
"""Beyond it, an error of 1 % of a figure may be one of 30 % of a term."""


class Term(StrEnum):
    """A field of `EngineProfile`."""

    STEP = "step_seconds"
    SEQUENCE = "sequence_seconds"
    TOKEN = "token_seconds"
    LAYER = "layer_seconds"
    COMPUTE = "compute"


MISSING = (Term.STEP, Term.LAYER, Term.SEQUENCE, Term.TOKEN)
"""What is fitted first, where time is missing in the prediction."""
TOO_LONG = (Term.COMPUTE, Term.STEP, Term.LAYER, Term.SEQUENCE, Term.TOKEN)
"""What is fitted first, where even without an engine a prediction is longer than what was measured."""


def told_apart(slopes_FN: Array, order: Sequence[int], most: int) -> list[int]:
    """Those terms, in their order, that the figures determine together.

    Args:
        slopes_FN: by how much each figure changes with each term, relative to its size.
        order: of the terms that are tried.
        most: so many at most.
    """
    chosen: list[int] = []
    for term in order:
        if len(chosen) < most and slopes_FN[:, term].any():
            tried_FN = slopes_FN[:, [*chosen, term]]
            singular = np.linalg.svd(tried_FN / np.linalg.norm(tried_FN, axis=0), compute_uv=False)
            if len(singular) == len(chosen) + 1 and singular[0] <= _WORST_CONDITION * singular[-1]:
                chosen.append(term)
    return chosen
