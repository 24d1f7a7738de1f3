"""The constants of a profile that can be fitted, and which of them measurements tell apart.

Shapes: F figures, N terms.
"""

from __future__ import annotations

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
    EXPERT = "expert_seconds"
    REQUEST = "request_seconds"
    COMPUTE = "compute"


# Requests' own time is always the last.
MISSING = (Term.STEP, Term.LAYER, Term.SEQUENCE, Term.TOKEN, Term.EXPERT, Term.REQUEST)
"""What is fitted first, where time is missing in the prediction."""
INSIDE = (Term.STEP, Term.LAYER, Term.COMPUTE, Term.SEQUENCE, Term.TOKEN, Term.EXPERT, Term.REQUEST)
"""The same, where the time in layers was measured apart: it tells of the kernels."""
TOO_LONG = (Term.COMPUTE, Term.STEP, Term.LAYER, Term.SEQUENCE, Term.TOKEN, Term.EXPERT, Term.REQUEST)
"""What is fitted first, where even without an engine a prediction is longer than what was measured."""


OF_FIRST_TOKENS = (Term.TOKEN, Term.REQUEST)
"""Those of which the time to first token tells."""


def are_told_apart(slopes_FN: Array) -> bool:
    """Whether figures determine some terms together.

    Args:
        slopes_FN: by how much each figure changes with each of them, relative to its size.
    """
    size_N = np.linalg.norm(slopes_FN, axis=0)
    if not size_N.all() or len(slopes_FN) < len(size_N):
        return False
    singular = np.linalg.svd(slopes_FN / size_N, compute_uv=False)
    return bool(singular[0] <= _WORST_CONDITION * singular[-1])
