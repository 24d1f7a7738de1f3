"""What one rank tells the controller of its load.

Shapes: L MoE layers, E logical experts, K experts per token, X choices sampled per layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LoadReport:
    """One rank's part of the load since its last report."""

    steps: int
    load_LE: NDArray[np.int32]
    """Choices of this rank's own tokens."""
    sample_LXK: NDArray[np.int16]
    """Choices of a few of them: the sketch of which experts go together."""
    rows_L: NDArray[np.int64]
    """Rows that this rank's experts computed."""
    expert_seconds: float
    step_seconds: float
    """Median; 0 without a step."""
    upper_seconds: float
    """Upper quartile: a step above it is slower than noise makes it."""
    longest_seconds: float
    busy_seconds: float
    """Spent on balancing itself, between steps."""
