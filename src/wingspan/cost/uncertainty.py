"""How far a prediction may be off: the error seen against published measurements, wider outside their range."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster

_WIDER_PER_DOUBLING = 0.1
"""Beyond the measured range: 10 percentage points per doubling, about what the predictions of this model lose
when they are fitted on one half of a range and judged on the other (docs/cost-model.md)."""


def relative_error(cluster: Cluster, operation: str, size: ArrayLike) -> NDArray[np.float64]:
    """Relative half-width of the error bar of `operation` at `size`.

    Args:
        operation: a key of `cluster.kernels.accuracy`; one that is not there has none (0).
        size: in the unit that the entry names (rows, rows per rank, ranks, ...).

    What the cluster's constants were carried over from other hardware adds to it (`Cluster.extrapolations`).
    """
    size = np.asarray(size, dtype=np.float64)
    measured = cluster.kernels.accuracy.get(operation)
    if measured is None:
        return np.zeros_like(size)
    at_least = np.maximum(size, 1e-12)
    beyond = np.maximum(np.log2(at_least / measured.high), np.log2(measured.low / at_least))
    wider: NDArray[np.float64] = measured.relative_error + _WIDER_PER_DOUBLING * np.maximum(beyond, 0.0)
    for extrapolation in cluster.extrapolations.values():
        reached = size > cluster.scale_up_domain_gpus if extrapolation.across_domains else True
        wider = wider + np.where(reached, extrapolation.wider.get(operation, 0.0), 0.0)
    return wider
