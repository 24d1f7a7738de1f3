"""How long a rank computes: matrix products, experts, element-wise work (attention: `attention.py`).

Every function broadcasts over numpy arrays and returns seconds. Shapes: S slots per rank, `...` anything before.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.cost.product import product_seconds, whole_tiles
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision, wider

Seconds = NDArray[np.float64]


class BatchRegime(StrEnum):
    """Which kernels run: those for decode, launched from a recorded graph or one by one, or those for prefill."""

    SMALL = "small"
    UNRECORDED = "unrecorded"
    LARGE = "large"

    @classmethod
    def of(cls, phase: str, dispatcher: DispatcherKind | None) -> BatchRegime:
        """The regime of a phase whose rows travel by a dispatcher; None: no rows do.

        A hierarchical dispatch tells the host how many rows arrived before it launches more, so that no graph
        can be recorded, and hands rows to the experts as in prefill; a flat one has fixed shapes (DeepEP,
        documentation of V1: normal dispatch is not compatible with CUDA graphs, the low-latency one is).
        """
        if phase != "decode":
            return cls.LARGE
        return cls.UNRECORDED if dispatcher is DispatcherKind.HIERARCHICAL else cls.SMALL


def matmul_seconds(
    cluster: Cluster,
    rows: ArrayLike,
    inner: ArrayLike,
    columns: ArrayLike,
    weights: Precision,
    activations: Precision,
    batch: BatchRegime = BatchRegime.LARGE,
    *,
    bare: bool | None = None,
) -> Seconds:
    """(rows, inner) x (inner, columns), the right one read from memory; zero rows take no time.

    Computes in the wider of the two precisions.

    Args:
        bare: whether no small kernel goes with it; None: as its rows are in 16 bits and not quantised.
    """
    rows, inner, columns = (np.asarray(a, dtype=np.float64) for a in (rows, inner, columns))
    kernel = cluster.kernels.matmul
    bare = is_bare(weights, activations) if bare is None else bare
    launch = launch_seconds(cluster, batch, bare=bare)
    share = kernel.arithmetic_shares.get(wider(weights, activations).arithmetic, 1.0)
    busy = product_seconds(cluster, rows[..., None], inner, columns, weights, activations, (share, 1.0))
    return np.where(rows > 0, busy + launch, 0.0)


def experts_seconds(
    cluster: Cluster,
    tokens_S: ArrayLike,
    hidden: int,
    inner: int,
    *,
    gated: bool,
    weights: Precision,
    activations: Precision,
    batch: BatchRegime,
    received: ArrayLike | None = None,
    active_S: ArrayLike | None = None,
) -> Seconds:
    """All experts of a rank in one MoE layer: (..., S) rows per slot give (...,) seconds.

    Two launches: all slots' up (and gate) products, all slots' down products. Each slot with at least one row has
    its weights read once; slots without rows cost nothing. Batches that are not small also pay for sorting rows to
    slots and for summing them again, and are never faster than the host launches them.

    Args:
        tokens_S: rows that each slot computes; the last axis are the slots of one rank.
        received: rows that arrived at the rank before they were copied to its slots, (...,); a token that
            two of its experts need arrives once. Default: as many as `tokens_S` sums to.
        active_S: see `product_seconds`.
    """
    tokens_S = np.asarray(tokens_S, dtype=np.float64)
    kernel, bandwidth = cluster.kernels.experts, cluster.gpu.sustained_memory_bytes_per_second
    rows = tokens_S.sum(axis=-1)
    active = np.minimum(tokens_S, 1.0) if active_S is None else np.asarray(active_S, dtype=np.float64)
    if batch is not BatchRegime.SMALL:
        padded = active * whole_tiles(tokens_S, active, kernel.row_alignment) * kernel.row_alignment
        tokens_S = np.where(tokens_S < 1, tokens_S, padded)
    up_columns = np.asarray((2 if gated else 1) * inner, dtype=np.float64)
    narrow, wide = np.asarray(float(inner)), np.asarray(float(hidden))
    shares = (kernel.arithmetic_shares.get(wider(weights, activations).arithmetic, 1.0), kernel.memory_share)
    busy = product_seconds(cluster, tokens_S, wide, up_columns, weights, activations, shares, active)
    busy = busy + product_seconds(cluster, tokens_S, narrow, wide, weights, activations, shares, active)
    between = tokens_S.sum(axis=-1) * (up_columns * max(activations.bytes, 2.0) + inner * activations.bytes)
    busy = busy + between / bandwidth
    if batch is BatchRegime.SMALL:
        return np.where(rows > 0, busy + np.minimum(rows, 1.0) * kernel.recorded_launch_seconds, 0.0)
    arrived = rows if received is None else np.asarray(received, dtype=np.float64)
    copying = sorting_seconds(cluster, tokens_S.sum(axis=-1), arrived, hidden, activations)
    seconds = np.maximum(busy + copying + kernel.launch_seconds, kernel.host_seconds)
    return np.where(rows > 0, seconds, 0.0)


def sorting_seconds(
    cluster: Cluster, rows: ArrayLike, arrived: ArrayLike, hidden: int, activations: Precision
) -> Seconds:
    """What a batch that is not small takes to sort its rows to slots and to sum them again, beside the products.

    Args:
        rows: that the slots of a rank compute.
        arrived: rows before they were copied to slots.
    """
    passes = cluster.kernels.experts.copy_passes
    row_bytes = hidden * (activations.bytes + 2) if passes else 0.0
    moved = np.asarray(arrived, dtype=np.float64) + passes * np.asarray(rows, dtype=np.float64)
    return np.asarray(moved * row_bytes / cluster.gpu.sustained_memory_bytes_per_second)


def elementwise_seconds(
    cluster: Cluster, moved_bytes: ArrayLike, batch: BatchRegime = BatchRegime.LARGE
) -> Seconds:
    """Norms, activations, copies: `moved_bytes` read and written."""
    moved = np.asarray(moved_bytes, dtype=np.float64)
    launch = launch_seconds(cluster, batch, bare=True)
    return np.where(moved > 0, moved / cluster.gpu.sustained_memory_bytes_per_second + launch, 0.0)


def is_bare(weights: Precision, activations: Precision) -> bool:
    """Whether a product of these needs no small kernel that quantises its rows."""
    return wider(weights, activations).bytes >= 2


def launch_seconds(cluster: Cluster, batch: BatchRegime, *, bare: bool) -> float:
    """What one kernel of a layer takes beyond its work, with the small kernels beside it unless it is bare of them."""
    kernel = cluster.kernels.matmul
    if batch is not BatchRegime.SMALL:
        return kernel.launch_seconds
    alone = kernel.bare_launch_seconds
    return alone if bare and alone is not None else kernel.recorded_launch_seconds
