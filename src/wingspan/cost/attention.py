"""How long a mixer takes between its projections: queries against what is cached, or a state's update."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.mixers.core import Core, Recurrence
from wingspan.specs.precision import Precision

Seconds = NDArray[np.float64]


def prefill_attention_seconds(
    cluster: Cluster,
    core: Core,
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
    busy = pairs * core.flops_per_pair / (cluster.gpu.sustained_flops(precision) * kernel.prefill_share)
    begun = kernel.prefill_launch_seconds + np.maximum(sequences - 1, 0) * kernel.sequence_seconds
    return np.where((new > 0) & (sequences > 0), busy + begun, 0.0)


def decode_attention_seconds(
    cluster: Cluster,
    core: Core,
    sequences: ArrayLike,
    context: ArrayLike,
    precision: Precision,
    cache_precision: Precision,
    tokens_each: int = 1,
) -> Seconds:
    """The core of `tokens_each` new tokens for each of `sequences`, which have `context` tokens on average.

    All tokens of a sequence share one read of its cache. Queries come from memory in 16 bits, and values go there.
    """
    sequences, context = (np.asarray(a, dtype=np.float64) for a in (sequences, context))
    kernel = cluster.kernels.attention
    pairs = sequences * context
    flops = tokens_each * pairs * core.flops_per_pair
    computing = flops / (cluster.gpu.sustained_flops(precision) * kernel.decode_share)
    read = pairs * core.cached_values * cache_precision.bytes
    read = read + tokens_each * sequences * core.row_values * 2.0
    reading = read / cluster.gpu.sustained_memory_bytes_per_second
    unhidden = kernel.decode_unhidden_share * np.minimum(computing, reading)
    busy = np.maximum(computing, reading) + unhidden
    return np.where(sequences > 0, busy + kernel.decode_launch_seconds, 0.0)


def recurrence_seconds(
    cluster: Cluster,
    recurrence: Recurrence,
    sequences: ArrayLike,
    tokens: ArrayLike,
    precision: Precision,
    *,
    decode: bool,
) -> Seconds:
    """A state's update and read by `tokens` of `sequences`, each of which reads and writes its state once.

    A decode step is bound by the state's bytes, a prefill computes it in chunks at the rate of the causal core:
    no kernel of either was measured here, so both are estimates.
    """
    sequences, tokens = (np.asarray(a, dtype=np.float64) for a in (sequences, tokens))
    kernel = cluster.kernels.attention
    share, launch = (
        (kernel.decode_share, kernel.decode_launch_seconds)
        if decode
        else (kernel.prefill_share, kernel.prefill_launch_seconds)
    )
    computing = tokens * recurrence.flops_per_token / (cluster.gpu.sustained_flops(precision) * share)
    moving = 2 * sequences * recurrence.state_bytes / cluster.gpu.sustained_memory_bytes_per_second
    return np.where(tokens > 0, np.maximum(computing, moving) + launch, 0.0)


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
