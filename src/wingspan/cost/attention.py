"""How long an attention core takes: queries against keys and values, without the projections around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.precision import Precision

Seconds = NDArray[np.float64]


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

    @property
    def flops_per_pair(self) -> float:
        """FLOP for one query token against one token of context, all heads."""
        return 2.0 * self.query_heads * (self.query_width + self.value_width)


def prefill_attention_seconds(
    cluster: Cluster,
    shape: AttentionShape,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    precision: Precision,
    sequences: ArrayLike = 1,
) -> Seconds:
    """The causal core over `sequences` alike: each `new_tokens` queries after `past_tokens` of context."""
    new, past, sequences = (np.asarray(a, dtype=np.float64) for a in (new_tokens, past_tokens, sequences))
    kernel = cluster.kernels.attention
    padded = np.ceil(new / kernel.query_tile) * kernel.query_tile if kernel.query_tile > 1 else new
    pairs = sequences * (padded * past + padded * (padded + kernel.query_tile) / 2)
    busy = pairs * shape.flops_per_pair / (cluster.gpu.sustained_flops(precision) * kernel.prefill_share)
    begun = kernel.prefill_launch_seconds + np.maximum(sequences - 1, 0) * kernel.sequence_seconds
    return np.where((new > 0) & (sequences > 0), busy + begun, 0.0)


def decode_attention_seconds(
    cluster: Cluster,
    shape: AttentionShape,
    sequences: ArrayLike,
    context: ArrayLike,
    precision: Precision,
    cache_precision: Precision,
) -> Seconds:
    """The core of one new token for each of `sequences`, which have `context` tokens on average."""
    sequences, context = (np.asarray(a, dtype=np.float64) for a in (sequences, context))
    kernel = cluster.kernels.attention
    pairs = sequences * context
    computing = pairs * shape.flops_per_pair / (cluster.gpu.sustained_flops(precision) * kernel.decode_share)
    read = pairs * shape.cached_values * cache_precision.bytes
    reading = read / cluster.gpu.sustained_memory_bytes_per_second
    unhidden = kernel.decode_unhidden_share * np.minimum(computing, reading)
    busy = np.maximum(computing, reading) + unhidden
    return np.where(sequences > 0, busy + kernel.decode_launch_seconds, 0.0)


def prefill_layer_seconds(cluster: Cluster, kernel_seconds: ArrayLike) -> Seconds:
    """A prefill layer's whole attention from the sum of its kernels (projections and core).

    Adds what lies between kernels, and is never faster than the host launches them.
    """
    kernel_seconds = np.asarray(kernel_seconds, dtype=np.float64)
    kernel = cluster.kernels.attention
    seconds = np.maximum(kernel_seconds + kernel.layer_seconds, kernel.host_seconds)
    return np.where(kernel_seconds > 0, seconds, 0.0)


def unrecorded_layer_seconds(cluster: Cluster, kernel_seconds: ArrayLike) -> Seconds:
    """A decode layer's whole attention, launched kernel by kernel: never faster than the host launches them."""
    kernel_seconds = np.asarray(kernel_seconds, dtype=np.float64)
    floor = cluster.kernels.attention.host_seconds
    return np.where(kernel_seconds > 0, np.maximum(kernel_seconds, floor), 0.0)
