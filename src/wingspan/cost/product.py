"""How long one launch of matrix products takes: tiles in waves against bytes read and written.

Shapes: P products of one launch (a rank's experts; 1 for a plain product), J widths of a tile, `...` anything
before; J stands first, where numpy is quick to reduce it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.precision import Precision, wider

Array = NDArray[np.float64]


def product_seconds(
    cluster: Cluster,
    rows_P: Array,
    inner: Array,
    columns: Array,
    weights: Precision,
    activations: Precision,
    shares: tuple[float, float] = (1.0, 1.0),
    active_P: Array | None = None,
) -> Array:
    """P products (rows, inner) x (inner, columns), one after another on the device, launches left out.

    Args:
        rows_P: (..., P); a product without rows costs nothing.
        inner, columns: alike for all P products; anything that broadcasts to (...,).
        shares: of the sustained FLOP/s and of the sustained memory bandwidth, that such products reach.
        active_P: where rows are an expectation, the share of the time in which each product has any; default: all of
            it, and of a fraction below 1 that fraction.

    Returns:
        (...,) seconds: the longer of computing and moving, and the part of the shorter that stays unhidden.
    """
    arithmetic_share, memory_share = shares
    active_P = np.minimum(rows_P, 1.0) if active_P is None else active_P
    precision = wider(weights, activations)
    busy = computing_seconds(cluster, rows_P, inner, columns, precision, arithmetic_share, active_P)
    moved = moved_bytes(rows_P, inner, columns, weights, activations, active_P)
    moving = moved / (cluster.gpu.sustained_memory_bytes_per_second * memory_share)
    share = cluster.kernels.matmul.unhidden_share
    seconds: Array = np.maximum(busy, moving) + share * np.minimum(busy, moving)
    return seconds


def computing_seconds(
    cluster: Cluster,
    rows_P: Array,
    inner: Array,
    columns: Array,
    precision: Precision,
    share: float,
    active_P: Array,
) -> Array:
    """Time of the arithmetic alone, with the tile sizes that suit it best: (...,).

    Less than one row in all is an expectation: that share of the time, what one row costs.
    """
    kernel, rate = cluster.kernels.matmul, cluster.gpu.sustained_flops(precision) * share
    if not kernel.processors:
        divided: Array = 2 * _total(rows_P) * inner * columns / rate
        return divided
    likely = np.minimum(_total(rows_P), 1.0)
    sure = np.where(likely > 0, likely, 1.0)
    before = (1,) * max(likely.ndim, np.ndim(columns))
    column_tile_J = np.asarray(kernel.column_tiles, np.float64).reshape(-1, *before)
    column_tiles_J = np.ceil(columns / column_tile_J)
    best: Array = np.asarray(np.inf)
    for row_tile in kernel.row_tiles:
        row_tiles = _total(active_P * whole_tiles(rows_P, active_P, row_tile)) / sure
        waves_J = np.ceil(row_tiles * column_tiles_J / kernel.processors)
        step_J = np.maximum(
            kernel.inner_step_seconds, 2 * row_tile * column_tile_J * kernel.processors / rate
        )
        best = np.minimum(best, (waves_J * step_J).min(axis=0))
    seconds: Array = best * likely * inner
    return seconds


def moved_bytes(
    rows_P: Array,
    inner: Array,
    columns: Array,
    weights: Precision,
    activations: Precision,
    active_P: Array,
) -> Array:
    """Weights of each product with rows, once; its rows in, and out in 16 bits or more: (...,)."""
    active, rows = _total(active_P), _total(rows_P)
    out = max(activations.bytes, 2.0)
    moved: Array = (
        active * inner * columns * weights.bytes + rows * inner * activations.bytes + rows * columns * out
    )
    return moved


def whole_tiles(rows_P: Array, active_P: Array, tile: float) -> Array:
    """Tiles of a product while it has rows, which is `active_P` of the time, with `rows_P` in the mean: (..., P)."""
    each_P = np.divide(rows_P, active_P, out=np.zeros_like(rows_P), where=active_P > 0)
    # Rows that fill their tiles still do after they were multiplied by the share and divided by it.
    tiles: Array = np.ceil(each_P / tile - 1e-9)
    return tiles


def _total(values_P: Array) -> Array:
    """Sum over the products: (...,). One expert per GPU is the usual case, and numpy's sums of one value take long."""
    total: Array = values_P[..., 0] if values_P.shape[-1] == 1 else values_P.sum(-1)
    return total
