"""What co-activation chance alone would give.

Shapes: L MoE layers, E logical experts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIT_ROUNDS = 30


def expected_coactivation(coactivation_LEE: NDArray[np.int64]) -> NDArray[np.float64]:
    """The co-activation (L, E, E) that has the same row sums and no other structure: a_e a_f, diagonal 0.

    The factors a are fitted to the row sums (iterative proportional fitting).
    """
    row_LE = off_diagonal(coactivation_LEE).sum(axis=2)
    a_LE = row_LE / np.sqrt(np.maximum(row_LE.sum(axis=1, keepdims=True), 1))
    for _ in range(_FIT_ROUNDS):
        others_LE = a_LE.sum(axis=1, keepdims=True) - a_LE
        wanted_LE = np.divide(row_LE, others_LE, out=np.zeros_like(a_LE), where=others_LE > 0)
        # The geometric mean of old and new: the plain update swings between two values.
        a_LE = np.sqrt(a_LE * wanted_LE)
    return off_diagonal(a_LE[:, :, None] * a_LE[:, None, :])


def off_diagonal(matrix_LEE: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the counts as floats, with zeros on each layer's diagonal: (L, E, E)."""
    copy = matrix_LEE.astype(np.float64)
    diagonal = np.arange(copy.shape[1])
    copy[:, diagonal, diagonal] = 0.0
    return copy
