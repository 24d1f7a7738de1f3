"""Which kind of table measures what, and the cost function that predicts it.

A group is a set of measurements with one meaning. Its `predict` takes the cluster, so that the same code judges the
shipped constants and fits new ones (calibration/fit.py). `sources.py` finds the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.interop.silicon.predict_attention import (
    latent_decode_core,
    latent_decode_layer,
    latent_prefill_core,
    latent_prefill_layer,
)
from wingspan.interop.silicon.predict_exchange import collective, engine_all_reduce, low_latency, normal
from wingspan.interop.silicon.predict_products import dense, experts_large, experts_small, grouped
from wingspan.interop.silicon.tables import MeasurementTable
from wingspan.specs.cluster import Cluster
from wingspan.specs.precision import Precision

Array = NDArray[np.float64]
Predict = Callable[[Cluster], Array]

_SUSPECT_EP64 = "2.3 x off the bandwidth that the kernels' authors publish (docs/cost-model.md)"


@dataclass(frozen=True, eq=False)
class MeasurementGroup:
    """Measurements of one operation.

    Args:
        name: `operation: what was varied`.
        operation: key of `Kernels.accuracy`.
        cluster: preset that describes the machine on which it was measured.
        measured: seconds per row.
        sizes: how large each measurement was, in the unit of `Kernels.accuracy`.
        for_fitting: rows on which constants may be fitted; the others judge.
        target: median error that the project promises on the judging rows; `None` = none promised.
        suspect: why the measurements are doubted; these serve neither fitting nor targets.
    """

    name: str
    operation: str
    source: str
    cluster: str
    measured: Array
    sizes: Array
    for_fitting: NDArray[np.bool_]
    predict: Predict
    target: float | None = None
    suspect: str | None = None


def groups_of(kind: str, table: MeasurementTable, cluster: str) -> list[MeasurementGroup]:
    """The groups that a table of a known kind (`KINDS`) consists of.

    Raises:
        InputError: the table is not what its kind says.
    """
    return list(KINDS[kind](table, cluster))


def _group(
    table: MeasurementTable,
    cluster: str,
    columns: tuple[str, ...],
    unit_seconds: float,
    predict: Predict,
    sizes: Array,
    *,
    name: str,
    operation: str,
    target: float | None = None,
    suspect: str | None = None,
    fitted: bool = True,
) -> MeasurementGroup:
    """A group whose measured time is the sum of some columns; `fitted`: constants may be fitted on its half."""
    nothing = np.zeros(len(table), dtype=bool)
    fitting = table.for_fitting if fitted and suspect is None else nothing
    measured = sum((table.number(column) for column in columns), np.zeros(len(table))) * unit_seconds
    return MeasurementGroup(
        name, operation, table.name, cluster, measured, sizes, fitting, predict, target, suspect
    )


def _dense(table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    yield _group(
        table,
        cluster,
        ("latency_us",),
        1e-6,
        dense(table),
        table.number("m"),
        name="matrix product: FP8, dense",
        operation="matmul",
        target=0.10,
    )


_GEMM_TYPES = {"fp8_block": Precision.FP8, "bfloat16": Precision.BF16, "nvfp4": Precision.NVFP4}
"""Products of DeepSeek-V3's and of NVFP4 checkpoints; FP8 with one scale per tensor is of other models."""
_LEAST_COLUMNS, _LEAST_INNER = 1024, 512
"""Narrower products are routers and what a rank has of very small models: nothing but a launch."""


def _gemm(whole: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    kinds = np.array(whole.text("gemm_dtype"))
    wide = (whole.number("n") >= _LEAST_COLUMNS) & (whole.number("k") >= _LEAST_INNER)
    for kind, precision in _GEMM_TYPES.items():
        table = whole.rows(wide & (kinds == kind))
        if len(table):
            yield _group(
                table,
                cluster,
                ("latency",),
                1e-3,
                dense(table, precision),
                table.number("m"),
                name=f"matrix product: {precision.upper()}, dense",
                operation="matmul",
            )


def _grouped(table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    phase = "decode" if "batch_size_per_gpu" in table.columns else "prefill"
    rows = table.number("tokens_per_expert") * table.number("num_local_experts")
    for column, half in (("up_proj_us", "up"), ("down_proj_us", "down")):
        yield _group(
            table,
            cluster,
            (column,),
            1e-6,
            grouped(table, half),
            rows,
            name=f"experts: {half} product alone, {phase}",
            operation="experts",
            fitted=False,
        )


def _experts(phase: str, whole: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    uniform = np.array([text == "uniform" for text in whole.text("distribution")], dtype=bool)
    for routing, table in (("uniform", whole.rows(uniform)), ("power law", whole.rows(~uniform))):
        if not len(table):
            continue
        yield _group(
            table,
            cluster,
            ("latency",),
            1e-3,
            (experts_large if phase == "prefill" else experts_small)(table),
            table.number("num_tokens") * table.number("topk") / table.number("moe_ep_size"),
            name=f"experts: {phase}, {routing}",
            operation="experts",
            target=0.15,
        )


def _low_latency(table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    most = int(table.number("node_num").max())
    for phase in ("dispatch", "combine"):
        yield _group(
            table,
            cluster,
            (f"{phase}_avg_t_us",),
            1e-6,
            low_latency(table, phase),
            8 * table.number("node_num"),
            name=f"{phase}: low-latency, {_up_to(most)}",
            operation=phase,
            target=0.15,
        )


def _normal(whole: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    doubted = whole.number("node_num") >= 8
    for phase in ("dispatch", "combine"):
        for suspect, table in ((False, whole.rows(~doubted)), (True, whole.rows(doubted))):
            if not len(table):
                continue
            yield _group(
                table,
                cluster,
                (f"{phase}_notify_us", f"{phase}_transmit_us"),
                1e-6,
                normal(table, phase),
                8 * table.number("node_num"),
                name=f"{phase}: normal, {'8 nodes' if suspect else _up_to(int(table.number('node_num').max()))}",
                operation=phase,
                target=None if suspect else 0.15,
                suspect=_SUSPECT_EP64 if suspect else None,
            )


def _up_to(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"1-{nodes} nodes"


def _collective(table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    yield _group(
        table,
        cluster,
        ("latency",),
        1e-3,
        collective(table),
        table.number("message_size"),
        name="collective: NCCL inside a node",
        operation="collective",
    )


_MOST_ONE_SHOT = 1 << 18
"""Elements up to which engines reduce in one shot: more than 36 tokens of 7,168 values."""


def _engine_all_reduce(whole: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    recorded = np.array(["eager" not in text for text in whole.text("kernel_source")], dtype=bool)
    table = whole.rows(recorded & (whole.number("message_size") <= _MOST_ONE_SHOT))
    if len(table):
        yield _group(
            table,
            cluster,
            ("latency",),
            1e-3,
            engine_all_reduce(table),
            table.number("message_size") * 2,
            name=f"all-reduce: {table.text('framework')[0]}'s own, one node",
            operation="collective",
        )


def _attention_core(phase: str, table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    if phase == "prefill":
        core, pairs = latent_prefill_core(table), table.number("seq_len") ** 2 / 2
    else:
        core, pairs = latent_decode_core(table), table.number("batch_size") * table.number("kv_len")
    name = f"attention: MLA {phase} core"
    yield _group(table, cluster, ("latency_us",), 1e-6, core, pairs, name=name, operation="attention")


def _attention_layer(phase: str, table: MeasurementTable, cluster: str) -> Iterator[MeasurementGroup]:
    sequences, length = table.number("batch_size"), table.number("isl")
    yield _group(
        table,
        cluster,
        ("latency",),
        1e-3,
        (latent_prefill_layer if phase == "prefill" else latent_decode_layer)(table),
        sequences * length * (length / 2 if phase == "prefill" else 1),
        name=f"attention: MLA {phase}, whole layer",
        operation="attention",
    )


KINDS: dict[str, Callable[[MeasurementTable, str], Iterator[MeasurementGroup]]] = {
    "infersim_gemm": _dense,
    "gemm": _gemm,
    "wideep_generation_moe": lambda table, cluster: _experts("decode", table, cluster),
    "wideep_context_moe": lambda table, cluster: _experts("prefill", table, cluster),
    "infersim_grouped_gemm": _grouped,
    "wideep_deepep_ll": _low_latency,
    "wideep_deepep_normal": _normal,
    "nccl": _collective,
    "custom_allreduce": _engine_all_reduce,
    "infersim_mla_decode": lambda table, cluster: _attention_core("decode", table, cluster),
    "infersim_mla_prefill": lambda table, cluster: _attention_core("prefill", table, cluster),
    "wideep_generation_mla": lambda table, cluster: _attention_layer("decode", table, cluster),
    "wideep_context_mla": lambda table, cluster: _attention_layer("prefill", table, cluster),
}
"""Kinds of tables, in the order of the report."""
