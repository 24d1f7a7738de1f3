"""Which rank sets a step's pace, and what it spends more on than the others: the same rule for both executors.

Shapes: R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from wingspan.schedule.result import Operation

_ALIKE = 1.0005
"""Ranks within this factor of the mean are called equal."""


def slowest(spent: Mapping[Operation, ArrayLike]) -> tuple[int, Operation | None, str]:
    """The rank that spends most on its own operations, for which the others wait.

    Args:
        spent: seconds per operation, (R,), hidden transfers left out; waiting is not looked at.

    Returns:
        The rank, the operation in which it exceeds the mean rank most, and both in words; no operation where all
        ranks are alike.
    """
    own = {op: np.asarray(seconds, np.float64) for op, seconds in spent.items() if op is not Operation.WAIT}
    total_R = sum(own.values(), np.zeros(1))
    rank = int(total_R.argmax())
    if total_R[rank] <= total_R.mean() * _ALIKE:
        return rank, None, "all ranks take equally long"
    operation = max(own, key=lambda op: float(own[op][rank] - own[op].mean()))
    ratio = own[operation][rank] / own[operation].mean()
    return rank, operation, f"rank {rank}: {operation.value} takes {ratio:.2f} x the mean rank's"
