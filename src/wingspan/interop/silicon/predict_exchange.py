"""Predictions for the tables of DeepEP kernels and of NCCL collectives.

What the tables time (from their columns and the kernels' own benchmarks, deepseek-ai/DeepEP tests/):
- low-latency: uniform top-k, one copy per (token, expert); the benchmark drops ten choices at random.
- normal: FP8 dispatch, BF16 combine; one copy per (token, node), forwarded to ranks inside; a token chooses among
  the experts of at most four nodes; the number of processors is varied. Time = notify (counts) + transmit.
- NCCL, and engines' own all-reduce: `message_size` counts elements of the whole buffer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.exchange import (
    Collective,
    Phase,
    all_reduce_seconds,
    collective_seconds,
    exchange_seconds,
)
from wingspan.interop.silicon.tables import MeasurementTable
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision
from wingspan.traffic.links import row_bytes, uniform_traffic

Array = NDArray[np.float64]
Predict = Callable[[Cluster], Array]

_DROPPED_CHOICES = 10
_MOST_NODES_PER_TOKEN = 4
_PRECISION = {"dispatch": Precision.FP8, "combine": Precision.BF16}


def low_latency(table: MeasurementTable, phase: str) -> Predict:
    """Low-latency dispatch or combine."""
    tokens, top_k = table.number("num_token"), table.number("num_topk")
    # A choice survives where none of the dropped positions, drawn with repetition, is its own.
    kept = tokens * (1 - 1 / (tokens * top_k)) ** _DROPPED_CHOICES
    return _exchange(table, kept, DispatcherKind.FLAT, phase, processors=None)


def normal(table: MeasurementTable, phase: str) -> Predict:
    """Normal dispatch or combine, with as many processors as the row says."""
    processors = table.number(f"{phase}_sms").astype(int)
    return _exchange(table, table.number("num_token"), DispatcherKind.HIERARCHICAL, phase, processors)


def collective(table: MeasurementTable) -> Predict:
    """NCCL collectives inside a node."""
    kinds, ranks = table.text("op_name"), table.number("num_gpus").astype(int)
    width = np.array([2.0 if dtype == "half" else 1.0 for dtype in table.text("nccl_dtype")])
    total = table.number("message_size") * width

    def predict(cluster: Cluster) -> Array:
        return np.array(
            [
                float(collective_seconds(cluster, Collective(kind), size, int(number)))
                for kind, size, number in zip(kinds, total, ranks, strict=True)
            ]
        )

    return predict


def engine_all_reduce(table: MeasurementTable) -> Predict:
    """An engine's own all-reduce inside a node; its elements have 16 bits."""
    ranks, total = table.number("num_gpus").astype(int), table.number("message_size") * 2.0

    def predict(cluster: Cluster) -> Array:
        each = zip(total, ranks, strict=True)
        return np.array(
            [float(all_reduce_seconds(cluster, size, int(number), engine=True)) for size, number in each]
        )

    return predict


def with_processors(cluster: Cluster, processors: int) -> Cluster:
    """Give the normal kernels of a cluster so many processors."""
    normal = cluster.kernels.normal.model_copy(update={"processors": processors})
    return cluster.model_copy(update={"kernels": cluster.kernels.model_copy(update={"normal": normal})})


def _exchange(
    table: MeasurementTable,
    tokens: Array,
    dispatcher: DispatcherKind,
    phase: str,
    processors: NDArray[np.int64] | None,
) -> Predict:
    columns = ("node_num", "num_experts", "num_topk", "hidden_size")
    nodes, experts, top_k, hidden = (table.number(column).astype(int) for column in columns)
    numbers = processors if processors is not None else np.zeros(len(table), dtype=int)
    setups = np.stack([nodes, experts, top_k, hidden, numbers], axis=1)
    kinds, kind_of = np.unique(setups, axis=0, return_inverse=True)
    groups = None if dispatcher is DispatcherKind.FLAT else _MOST_NODES_PER_TOKEN

    def predict(cluster: Cluster) -> Array:
        seconds = np.empty(len(table))
        for index, (count, total, k, width, number) in enumerate(kinds.tolist()):
            here = kind_of.reshape(-1) == index
            machine = cluster if processors is None else with_processors(cluster, number)
            ranks, row = count * cluster.gpus_per_node, row_bytes(width, _PRECISION[phase])
            traffic = uniform_traffic(machine, ranks, tokens[here], row, total, k, dispatcher, groups)
            seconds[here] = exchange_seconds(machine, traffic, dispatcher, Phase(phase)).seconds
        return seconds

    return predict
