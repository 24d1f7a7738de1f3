"""What overlap really hides: kernels that share a GPU slow each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster


def overlapped_seconds(
    cluster: Cluster, compute_seconds: ArrayLike, communication_seconds: ArrayLike
) -> NDArray[np.float64]:
    """Time for both, begun together: slowed while both run, at full speed once one is done.

    Never shorter than the longer of the two, never longer than both in turn.

    Example: slowdowns 1.25 and 1.25, 4 s and 2 s: the transfer ends after 2.5 s, by when 2 s of the
    computation are done; the other 2 s follow: 4.5 s instead of 4.
    """
    compute, transfer = (np.asarray(a, dtype=np.float64) for a in (compute_seconds, communication_seconds))
    kernel = cluster.kernels.contention
    slow_compute, slow_transfer = kernel.compute_slowdown, kernel.communication_slowdown
    together = np.minimum(compute * slow_compute, transfer * slow_transfer)
    left = np.maximum(compute - together / slow_compute, transfer - together / slow_transfer)
    span: NDArray[np.float64] = np.minimum(together + left, compute + transfer)
    return span
