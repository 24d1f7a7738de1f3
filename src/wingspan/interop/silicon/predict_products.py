"""Predictions for the tables of matrix products and of whole experts layers.

What the tables time (from their columns and the collectors' code):
- dense: one FP8 product (m, k) x (k, n), BF16 result.
- grouped: all local experts' up-and-gate product (n = 2 x intermediate), or their down product, alone.
- experts, decode: both products with the activation between, from a recorded graph, on the fullest rank.
- experts, prefill: that, sorting and summing included, launched from the host. `num_tokens` counts the whole EP
  group's; the collector hands *all* of them to the rank it times as received. Power-law rows are padded to 128 per
  expert; uniform rows are not, so that below 128 rows per expert the kernel sees fewer, full experts.

Shapes: N draws, S slots per rank.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.compute import BatchRegime, experts_seconds, matmul_seconds
from wingspan.cost.product import product_seconds
from wingspan.interop.silicon.routing import power_law_rows, uniform_rows
from wingspan.interop.silicon.tables import MeasurementTable
from wingspan.specs.cluster import Cluster
from wingspan.specs.precision import Precision

Array = NDArray[np.float64]
Predict = Callable[[Cluster], Array]

_DRAWS = 8
_ROW_BLOCK = 128
"""Rows in which DeepGEMM's contiguous kernel reads one expert's weights (deepseek-ai/DeepGEMM, README)."""


def dense(table: MeasurementTable, precision: Precision = Precision.FP8) -> Predict:
    """Products of operands of one precision, one per row."""
    m, k, n = (table.number(column) for column in ("m", "k", "n"))
    return lambda cluster: matmul_seconds(cluster, m, k, n, precision, precision)


def grouped(table: MeasurementTable, half: str) -> Predict:
    """One of the two products of all local experts, launch included."""
    slots = table.number("num_local_experts").astype(int)
    rows, hidden = table.number("tokens_per_expert"), table.number("hidden_size")
    width = table.number("intermediate_size")
    inner, columns = (hidden, 2 * width) if half == "up" else (width, hidden)
    rows_NS = np.where(np.arange(slots.max()) < slots[:, None], rows[:, None], 0.0)

    def predict(cluster: Cluster) -> Array:
        busy = product_seconds(cluster, rows_NS, inner, columns, Precision.FP8, Precision.FP8)
        return busy + cluster.kernels.matmul.launch_seconds

    return predict


def experts_small(table: MeasurementTable) -> Predict:
    """Whole decode experts layers, each the mean over draws."""
    return _experts(table, _workloads(table, large=False), BatchRegime.SMALL)


def experts_large(table: MeasurementTable) -> Predict:
    """Whole prefill experts layers, each the mean over draws."""
    return _experts(table, _workloads(table, large=True), BatchRegime.LARGE)


def _experts(table: MeasurementTable, rows_NS: list[Array], batch: BatchRegime) -> Predict:
    hidden, inner = int(table.number("hidden_size")[0]), int(table.number("inter_size")[0])
    received = table.number("num_tokens")
    by_slots: dict[tuple[int, ...], list[int]] = {}
    for index, rows in enumerate(rows_NS):
        by_slots.setdefault(rows.shape, []).append(index)

    def predict(cluster: Cluster) -> Array:
        seconds = np.empty(len(rows_NS))
        for members in by_slots.values():
            stacked = np.stack([rows_NS[i] for i in members])
            times = experts_seconds(
                cluster,
                stacked,
                hidden,
                inner,
                gated=True,
                weights=Precision.FP8,
                activations=Precision.FP8,
                batch=batch,
                received=received[members][:, None] if batch is BatchRegime.LARGE else None,
            )
            seconds[members] = times.mean(axis=1)
        return seconds

    return predict


def _workloads(table: MeasurementTable, *, large: bool) -> list[Array]:
    """Rows per slot of the rank that each row of the table times: (N, S) arrays."""
    experts, top_k = table.number("num_experts").astype(int), table.number("topk").astype(int)
    tokens, ranks = table.number("num_tokens").astype(int), table.number("moe_ep_size").astype(int)
    workloads = []
    for index, distribution in enumerate(table.text("distribution")):
        shape = (int(tokens[index]), int(experts[index]), int(top_k[index]), int(ranks[index]))
        if distribution == "uniform":
            rows = uniform_rows(*shape)
            workloads.append(_packed(rows) if large else rows)
        else:
            workloads.append(power_law_rows(*shape, float(distribution.rsplit("_", 1)[1]), _DRAWS))
    return workloads


def _packed(rows_NS: Array) -> Array:
    """Rows as the contiguous kernel sees them when they are not padded: each block of 128 belongs to one expert."""
    if rows_NS.max() >= _ROW_BLOCK:
        return rows_NS
    blocks = np.ceil(rows_NS.sum(axis=1, keepdims=True) / _ROW_BLOCK)
    return np.where(np.arange(rows_NS.shape[1]) < blocks, float(_ROW_BLOCK), 0.0)
