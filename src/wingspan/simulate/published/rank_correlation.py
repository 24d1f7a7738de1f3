"""Kendall's rank correlation; scipy's own takes a second to import, longer than everything that is ranked here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b: 1 where both rank alike, -1 where they rank the other way; 0 where one says nothing."""
    orders = [np.sign(np.subtract.outer(values, values)) for values in (one, other)]
    ties = np.sqrt(np.abs(orders[0]).sum() * np.abs(orders[1]).sum())
    return float((orders[0] * orders[1]).sum() / ties) if ties else 0.0
