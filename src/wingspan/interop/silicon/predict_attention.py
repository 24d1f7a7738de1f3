"""Predictions for the tables of DeepSeek-V3's latent attention (MLA).

What the tables time: InferSim the core alone (BF16, 128 heads); aiconfigurator a whole attention layer with its
FP8 projections, `num_heads` of 128 heads on the rank, decode from a recorded graph, prefill launched from the host.
The decode times fit a BF16 cache whatever the column `kv_cache_dtype` says: at 16 heads they would otherwise read
at half the memory's rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.attention import (
    decode_attention_seconds,
    prefill_attention_seconds,
    prefill_layer_seconds,
)
from wingspan.cost.compute import BatchRegime, matmul_seconds
from wingspan.interop.silicon.tables import MeasurementTable
from wingspan.specs.cluster import Cluster
from wingspan.specs.mixers import LatentAttention
from wingspan.specs.mixers.core import Core
from wingspan.specs.precision import Precision

Array = NDArray[np.float64]
Predict = Callable[[Cluster], Array]

_HEADS, _HIDDEN, _QUERY_RANK, _KV_RANK, _NOPE, _ROPE, _VALUE = 128, 7168, 1536, 512, 128, 64, 128
"""DeepSeek-V3, arXiv:2412.19437, section 4.2."""


def _core(heads: int, *, absorbed: bool) -> Core:
    of = LatentAttention(
        heads=heads,
        query_rank=_QUERY_RANK,
        kv_rank=_KV_RANK,
        nope_dim=_NOPE,
        rope_dim=_ROPE,
        value_dim=_VALUE,
    )
    return of.cores(1, absorbed=absorbed)[0]


def latent_decode_core(table: MeasurementTable) -> Predict:
    """The decode core of all 128 heads."""
    shape = _core(_HEADS, absorbed=True)
    sequences, context = table.number("batch_size"), table.number("kv_len")
    return lambda cluster: decode_attention_seconds(
        cluster, shape, sequences, context, Precision.BF16, Precision.BF16
    )


def latent_prefill_core(table: MeasurementTable) -> Predict:
    """The prefill core of all 128 heads over one sequence; the table leaves the rotary part of the keys out."""
    shape = _core(_HEADS, absorbed=False)
    tokens = table.number("seq_len")
    return lambda cluster: prefill_attention_seconds(cluster, shape, tokens, 0.0, Precision.BF16)


def latent_decode_layer(table: MeasurementTable) -> Predict:
    """Projections, absorbed up-projections and core of one new token per sequence."""
    return _per_heads(table, _decode_layer)


def latent_prefill_layer(table: MeasurementTable) -> Predict:
    """Projections and core over new sequences."""
    return _per_heads(table, _prefill_layer)


def _decode_layer(cluster: Cluster, heads: int, sequences: Array, context: Array) -> Array:
    shape = _core(heads, absorbed=True)
    core = decode_attention_seconds(cluster, shape, sequences, context, Precision.BF16, Precision.BF16)
    absorbed = [(_NOPE, heads * _KV_RANK), (_KV_RANK, heads * _VALUE)]
    # Per head its own product of all tokens: the same weights and arithmetic as one product that wide.
    absorbing = sum(
        matmul_seconds(
            cluster, sequences, k, n, Precision.BF16, Precision.BF16, BatchRegime.SMALL, bare=False
        )
        for k, n in absorbed
    )
    projections = [
        (_HIDDEN, _QUERY_RANK + _KV_RANK + _ROPE),
        (_QUERY_RANK, heads * (_NOPE + _ROPE)),
        (heads * _VALUE, _HIDDEN),
    ]
    return core + absorbing + _projected(cluster, sequences, projections, BatchRegime.SMALL)


def _prefill_layer(cluster: Cluster, heads: int, sequences: Array, length: Array) -> Array:
    shape = _core(heads, absorbed=False)
    core = prefill_attention_seconds(cluster, shape, length, 0.0, Precision.BF16, sequences)
    projections = [
        (_HIDDEN, _QUERY_RANK + _KV_RANK + _ROPE),
        (_QUERY_RANK, heads * (_NOPE + _ROPE)),
        (_KV_RANK, heads * (_NOPE + _VALUE)),
        (heads * _VALUE, _HIDDEN),
    ]
    projected = _projected(cluster, sequences * length, projections, BatchRegime.LARGE)
    return prefill_layer_seconds(cluster, core + projected)


def _projected(cluster: Cluster, rows: Array, shapes: list[tuple[int, int]], batch: BatchRegime) -> Array:
    times = [matmul_seconds(cluster, rows, k, n, Precision.FP8, Precision.FP8, batch) for k, n in shapes]
    total: Array = np.sum(times, axis=0)
    return total


def _per_heads(table: MeasurementTable, layer: Callable[[Cluster, int, Array, Array], Array]) -> Predict:
    heads = table.number("num_heads").astype(int)
    sequences, length = table.number("batch_size"), table.number("isl")

    def predict(cluster: Cluster) -> Array:
        seconds = np.empty(len(table))
        for count in np.unique(heads):
            here = heads == count
            seconds[here] = layer(cluster, int(count), sequences[here], length[here])
        return seconds

    return predict
