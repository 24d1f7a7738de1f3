"""How long a rank computes: matrix products, experts, attention, element-wise work.

Every function broadcasts over numpy arrays and returns seconds. Shapes: S slots per rank, `...` anything before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.precision import Precision

Seconds = NDArray[np.float64]


class Batch(StrEnum):
    """Which kernels run: those for decode (launched from a recorded graph) or those for prefill."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class AttentionShape:
    """What one layer's attention core multiplies, on one rank.

    Args:
        query_heads: heads of the queries on this rank.
        query_width: width of one head's query and key.
        value_width: width of one head's value.
        cached_values: numbers kept per token of context (keys and values of all heads; MLA: the latent vector).
    """

    query_heads: int
    query_width: int
    value_width: int
    cached_values: int

    @classmethod
    def grouped(cls, query_heads: int, key_value_heads: int, head_width: int) -> AttentionShape:
        """MHA (as many key-value heads as query heads) and GQA."""
        return cls(query_heads, head_width, head_width, 2 * key_value_heads * head_width)

    @classmethod
    def latent_decode(cls, query_heads: int, latent: int, rope: int) -> AttentionShape:
        """MLA with the projections absorbed: all heads read one latent vector (DeepSeek-V3: 512 + 64)."""
        return cls(query_heads, latent + rope, latent, latent + rope)

    @classmethod
    def latent_prefill(cls, query_heads: int, nope: int, rope: int, value_width: int) -> AttentionShape:
        """MLA with keys and values expanded per head (DeepSeek-V3: 128 + 64 and 128)."""
        return cls(query_heads, nope + rope, value_width, query_heads * (nope + rope + value_width))


def matmul_seconds(
    cluster: Cluster,
    rows: ArrayLike,
    inner: ArrayLike,
    columns: ArrayLike,
    weights: Precision,
    activations: Precision,
) -> Seconds:
    """(rows, inner) x (inner, columns), the right one read from memory; zero rows take no time.

    Computes in the wider of the two precisions.
    """
    rows, inner, columns = (np.asarray(a, dtype=np.float64) for a in (rows, inner, columns))
    flops = 2 * rows * inner * columns
    moved = inner * columns * weights.bytes + rows * (inner + columns) * activations.bytes
    gpu = cluster.gpu
    busy = np.maximum(
        flops / gpu.sustained_flops(wider(weights, activations)),
        moved / gpu.sustained_memory_bytes_per_second,
    )
    return np.where(rows > 0, busy + cluster.kernels.matmul.launch_seconds, 0.0)


def experts_seconds(
    cluster: Cluster,
    tokens_S: ArrayLike,
    hidden: int,
    inner: int,
    *,
    gated: bool,
    weights: Precision,
    activations: Precision,
    batch: Batch,
    received: ArrayLike | None = None,
) -> Seconds:
    """All experts of a rank in one MoE layer: (..., S) rows per slot give (...,) seconds.

    Each slot with at least one row has its weights read once; slots without rows cost nothing.

    Args:
        tokens_S: rows that each slot computes; the last axis are the slots of one rank.
        received: rows that arrived at the rank before they were copied to its slots, (...,); a token that
            two of its experts need arrives once. Default: as many as `tokens_S` sums to.
    """
    tokens_S = np.asarray(tokens_S, dtype=np.float64)
    gpu = cluster.gpu
    rows = tokens_S.sum(axis=-1)
    matrices = 3 if gated else 2
    flops = 2.0 * rows * matrices * hidden * inner
    read = (tokens_S > 0).sum(axis=-1) * float(matrices * hidden * inner) * weights.bytes
    moved = read + rows * (2 * hidden + 2 * matrices * inner) * activations.bytes
    busy = np.maximum(
        flops / gpu.sustained_flops(wider(weights, activations)),
        moved / gpu.sustained_memory_bytes_per_second,
    )
    kernel = cluster.kernels.experts
    launch = kernel.small_batch_launch_seconds
    if batch is Batch.LARGE:
        arrived = rows if received is None else np.asarray(received, dtype=np.float64)
        # Read as they came, and written back as one summed BF16 row for the combine.
        busy = busy + arrived * hidden * (activations.bytes + 2) / gpu.sustained_memory_bytes_per_second
        launch = kernel.large_batch_launch_seconds
    return np.where(rows > 0, busy + launch, 0.0)


def prefill_attention_seconds(
    cluster: Cluster,
    shape: AttentionShape,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    precision: Precision,
) -> Seconds:
    """The causal attention core over one sequence: `new_tokens` queries after `past_tokens` of context."""
    new, past = (np.asarray(a, dtype=np.float64) for a in (new_tokens, past_tokens))
    pairs = new * past + new * (new + 1) / 2
    flops = 2 * pairs * shape.query_heads * (shape.query_width + shape.value_width)
    kernel = cluster.kernels.attention
    busy = flops / (cluster.gpu.sustained_flops(precision) * kernel.prefill_share)
    return np.where(new > 0, busy + kernel.launch_seconds, 0.0)


def decode_attention_seconds(
    cluster: Cluster,
    shape: AttentionShape,
    sequences: ArrayLike,
    context: ArrayLike,
    precision: Precision,
    cache_precision: Precision,
) -> Seconds:
    """The attention core of one new token for each of `sequences`, which have `context` tokens on average."""
    sequences, context = (np.asarray(a, dtype=np.float64) for a in (sequences, context))
    pairs = sequences * context
    flops = 2 * pairs * shape.query_heads * (shape.query_width + shape.value_width)
    read = pairs * shape.cached_values * cache_precision.bytes
    kernel = cluster.kernels.attention
    busy = np.maximum(
        flops / (cluster.gpu.sustained_flops(precision) * kernel.decode_share),
        read / cluster.gpu.sustained_memory_bytes_per_second,
    )
    return np.where(sequences > 0, busy + kernel.launch_seconds, 0.0)


def elementwise_seconds(cluster: Cluster, moved_bytes: ArrayLike) -> Seconds:
    """Norms, activations, copies: `moved_bytes` read and written."""
    moved = np.asarray(moved_bytes, dtype=np.float64)
    busy = moved / cluster.gpu.sustained_memory_bytes_per_second
    return np.where(moved > 0, busy + cluster.kernels.matmul.launch_seconds, 0.0)


def wider(one: Precision, other: Precision) -> Precision:
    """The precision in which a product of the two is computed: that with more bytes."""
    return one if one.bytes >= other.bytes else other
