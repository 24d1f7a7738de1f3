"""Figures that kernels' authors print, beside what the model says: none of them was used to fit anything.

DeepEP prints *logical* bandwidth: bytes of all copies, those that stay on the sender's node included, over time. The
network card carries less; both figures are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from wingspan.cost.compute import matmul_seconds
from wingspan.cost.exchange import Phase, exchange_seconds
from wingspan.cost.product import product_seconds
from wingspan.interop.silicon.tables import MeasurementTable
from wingspan.routing.distinct import expected_distinct
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision
from wingspan.traffic.links import row_bytes, uniform_traffic

_HIDDEN, _EXPERTS, _TOP_K = 7168, 256, 8
"""The benchmarks' model (DeepSeek-V3), as the rows' `model` says."""
_MOST_NODES_PER_TOKEN = 4
_NORMAL_PROCESSORS = 24
"""DeepEP's own benchmark of normal kernels (tests/test_internode.py, num_sms)."""

Row = dict[str, str]


@dataclass(frozen=True)
class Headline:
    """One published figure; `card` is what the network card carries then, in GB/s, where there is one."""

    id: str
    what: str
    unit: str
    published: float
    predicted: float
    card: float | None = None

    @property
    def error(self) -> float:
        """Relative error of the predicted *time*: a bandwidth that is too high is a time that is too short."""
        ratio = self.predicted / self.published
        return ratio - 1 if self.unit == "us" else 1 / ratio - 1

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {**asdict(self), "error": self.error}


def headlines(table: MeasurementTable, cluster_named: Callable[[str], Cluster]) -> list[Headline]:
    """Every row that the model has an operation for, in the table's order.

    Raises:
        InputError: the table lacks a column.
    """
    names = ("id", "system", "hardware", "ep", "precision", "batch_per_gpu", "seq", "metric", "value")
    rows = zip(*(table.text(name) for name in names), strict=True)
    found = []
    for row in (dict(zip(names, cells, strict=True)) for cells in rows):
        predict = _predictor(row)
        if predict is not None:
            name = "h800" if row["hardware"].startswith("H800") else "h100-sxm"
            found.append(predict(row, cluster_named(name)))
    return found


def _predictor(row: Row) -> Callable[[Row, Cluster], Headline] | None:
    system, metric = row["system"], row["metric"]
    if system.startswith("DeepEP V1 normal"):
        return _normal
    if system.startswith("DeepEP V1 low-latency") and metric.endswith("_latency"):
        return _low_latency_time
    if system.startswith("NCCL EP") and metric.startswith("LL_"):
        return _low_latency_rate
    if metric == "compute" and system.startswith("DeepGEMM dense"):
        return _product
    if metric == "compute" and system.startswith("DeepGEMM grouped"):
        return _grouped_product
    return None


def _normal(row: Row, cluster: Cluster) -> Headline:
    phase, ranks, tokens = _phase(row), int(row["ep"]), float(row["batch_per_gpu"])
    machine = _with_processors(cluster.part(ranks))
    size = row_bytes(_HIDDEN, _row_precision(row, phase))
    arguments = (
        machine,
        ranks,
        tokens,
        size,
        _EXPERTS,
        _TOP_K,
        DispatcherKind.HIERARCHICAL,
        _MOST_NODES_PER_TOKEN,
    )
    traffic = uniform_traffic(*arguments)
    seconds = float(exchange_seconds(machine, traffic, DispatcherKind.HIERARCHICAL, phase).seconds)
    nodes = ranks // machine.scale_up_domain_gpus
    if nodes == 1:
        copies = expected_distinct(_EXPERTS, _TOP_K, ranks)
    else:
        reach = min(nodes, _MOST_NODES_PER_TOKEN)
        copies = expected_distinct(_EXPERTS * reach // nodes, _TOP_K, reach)
    card = float(traffic.scale_out_sent[0]) / seconds / 1e9 if nodes > 1 else None
    what = f"DeepEP normal {phase} EP{ranks}, logical"
    rate = tokens * copies * size / seconds / 1e9
    return Headline(row["id"], what, "GB/s", float(row["value"]), rate, card)


def _low_latency_time(row: Row, cluster: Cluster) -> Headline:
    seconds, phase, ranks, card = _low_latency(row, cluster)
    what = f"DeepEP low-latency {phase} EP{ranks}"
    return Headline(row["id"], what, "us", float(row["value"]), seconds * 1e6, card)


def _low_latency_rate(row: Row, cluster: Cluster) -> Headline:
    seconds, phase, ranks, card = _low_latency(row, cluster)
    logical = float(row["batch_per_gpu"]) * _TOP_K * row_bytes(_HIDDEN, _row_precision(row, phase))
    what = f"NCCL EP {phase} EP{ranks}, logical"
    return Headline(row["id"], what, "GB/s", float(row["value"]), logical / seconds / 1e9, card)


def _low_latency(row: Row, cluster: Cluster) -> tuple[float, Phase, int, float | None]:
    phase, ranks, tokens = _phase(row), int(row["ep"]), float(row["batch_per_gpu"])
    machine = cluster.part(ranks)
    size = row_bytes(_HIDDEN, _row_precision(row, phase))
    traffic = uniform_traffic(machine, ranks, tokens, size, _EXPERTS, _TOP_K, DispatcherKind.FLAT)
    seconds = float(exchange_seconds(machine, traffic, DispatcherKind.FLAT, phase).seconds)
    crossing = float(traffic.scale_out_sent[0])
    return seconds, phase, ranks, crossing / seconds / 1e9 if crossing else None


def _product(row: Row, cluster: Cluster) -> Headline:
    columns, inner = _numbers(row["seq"])
    rows = float(row["batch_per_gpu"])
    seconds = float(matmul_seconds(cluster, rows, inner, columns, Precision.FP8, Precision.FP8))
    what = f"DeepGEMM {rows:.0f} x {columns:.0f} x {inner:.0f}"
    return Headline(
        row["id"], what, "TFLOPS", float(row["value"]), 2 * rows * columns * inner / seconds / 1e12
    )


def _grouped_product(row: Row, cluster: Cluster) -> Headline:
    groups, rows, columns, inner = _numbers(f"{row['batch_per_gpu']} {row['seq']}")
    rows_P = np.full(int(groups), rows)
    busy = product_seconds(
        cluster, rows_P, np.asarray(inner), np.asarray(columns), Precision.FP8, Precision.FP8
    )
    seconds = float(busy) + cluster.kernels.matmul.launch_seconds
    what = f"DeepGEMM grouped {groups:.0f} x {rows:.0f} x {columns:.0f} x {inner:.0f}"
    rate = 2 * groups * rows * columns * inner / seconds / 1e12
    return Headline(row["id"], what, "TFLOPS", float(row["value"]), rate)


def _phase(row: Row) -> Phase:
    return Phase.DISPATCH if "dispatch" in row["metric"] else Phase.COMBINE


def _row_precision(row: Row, phase: Phase) -> Precision:
    return Precision.FP8 if phase is Phase.DISPATCH and "FP8 dispatch" in row["precision"] else Precision.BF16


def _with_processors(cluster: Cluster) -> Cluster:
    normal = cluster.kernels.normal.model_copy(update={"processors": _NORMAL_PROCESSORS})
    return cluster.model_copy(update={"kernels": cluster.kernels.model_copy(update={"normal": normal})})


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+", text)]
