"""Load and imbalance: max / mean per layer, then averaged over layers, never the reverse."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError


def imbalance_per_layer(load_LE: ArrayLike) -> NDArray[np.float64]:
    """max / mean of each layer's load: (layers,).

    Args:
        load_LE: tokens per (layer, expert), or per slot, or per rank; any non-negative numbers.

    A layer that saw no token counts as balanced (1.0).

    Example: `[[3, 1], [2, 2]]` gives `[1.5, 1.0]`.
    """
    load = np.asarray(load_LE, dtype=np.float64)
    mean_L = load.mean(axis=1)
    ratio_L: NDArray[np.float64] = np.ones_like(mean_L)
    np.divide(load.max(axis=1), mean_L, out=ratio_L, where=mean_L > 0)
    return ratio_L


def imbalance(load_LE: ArrayLike) -> float:
    """Mean over layers of `imbalance_per_layer`; never the imbalance of the summed layers.

    Example: `[[3, 1], [1, 3]]` gives 1.5, although both experts see 4 tokens in all.
    """
    return float(imbalance_per_layer(load_LE).mean())


def checked_load(load_LE: ArrayLike) -> NDArray[np.float64]:
    """`load_LE` as floats; raises `InputError` unless it is (layers, experts) of finite numbers >= 0."""
    load = np.asarray(load_LE, dtype=np.float64)
    if load.ndim != 2 or 0 in load.shape:
        raise InputError(f"loads: expected (layers, experts), got shape {load.shape}")
    if not np.isfinite(load).all() or (load < 0).any():
        raise InputError("loads: every load must be a finite number of tokens, 0 or more")
    return load
