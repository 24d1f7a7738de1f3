"""How far a prediction may be off: the error seen against published measurements, wider outside their range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError


@dataclass(frozen=True)
class Measured:
    """What was measured of one operation: the range of its size, and the error of the prediction within it.

    Args:
        unit: what `low` and `high` count.
        error: relative error that 9 of 10 judged rows stay below.
    """

    unit: str
    low: float
    high: float
    error: float


MEASURED: dict[str, Measured] = {
    "matmul": Measured("rows", 16, 32768, 0.3),
    "experts": Measured("rows per rank", 1, 131072, 0.3),
    "attention": Measured("context x sequences", 1024, 4.2e6, 0.3),
    "dispatch": Measured("ranks", 8, 64, 0.3),
    "combine": Measured("ranks", 8, 64, 0.3),
}

_WIDER_PER_DOUBLING = 0.1


def relative_error(operation: str, size: ArrayLike) -> NDArray[np.float64]:
    """Relative half-width of the error bar of `operation` at `size` (see `MEASURED` for the unit).

    Within the measured range the error seen there; beyond it, 10 percentage points more per doubling.

    Raises:
        InputError: no such operation.
    """
    if operation not in MEASURED:
        raise InputError(f"no measured range for {operation}; known: {', '.join(MEASURED)}")
    measured = MEASURED[operation]
    size = np.maximum(np.asarray(size, dtype=np.float64), 1e-12)
    beyond = np.maximum(np.log2(size / measured.high), np.log2(measured.low / size))
    return measured.error + _WIDER_PER_DOUBLING * np.maximum(beyond, 0.0)
