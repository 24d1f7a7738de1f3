"""Which published table measures what, and the cost function that predicts it.

A group is a set of measurements with one meaning. Its `predict` takes the cluster, so that the same code judges the
shipped constants and fits new ones (calibration/fit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wingspan.interop.silicon.predict_attention import (
    latent_decode_core,
    latent_decode_layer,
    latent_prefill_core,
    latent_prefill_layer,
)
from wingspan.interop.silicon.predict_exchange import collective, low_latency, normal
from wingspan.interop.silicon.predict_products import dense, experts_large, experts_small, grouped
from wingspan.interop.silicon.tables import Table, read_table
from wingspan.specs.cluster import Cluster

Array = NDArray[np.float64]
Predict = Callable[[Cluster], Array]

_AIC = "aiconfigurator_h100_sxm-"


@dataclass(frozen=True, eq=False)
class Group:
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


def read_groups(folder: Path) -> list[Group]:
    """All groups whose tables lie in `folder`, in the order of the report; none where it holds none of them.

    Raises:
        InputError: a table is there but cannot be read as what it should be.
    """
    return [
        group for name, make in _TABLES for path in [folder / name] if path.is_file() for group in make(path)
    ]


def _group(
    table: Table,
    columns: str | tuple[str, ...],
    unit_seconds: float,
    predict: Predict,
    sizes: Array,
    *,
    name: str,
    operation: str,
    cluster: str = "h100-sxm",
    target: float | None = None,
    suspect: str | None = None,
) -> Group:
    fitting = table.for_fitting if suspect is None else np.zeros(len(table), dtype=bool)
    parts = (columns,) if isinstance(columns, str) else columns
    measured = sum((table.number(column) for column in parts), np.zeros(len(table))) * unit_seconds
    return Group(name, operation, table.name, cluster, measured, sizes, fitting, predict, target, suspect)


def _dense(path: Path) -> Iterator[Group]:
    table = read_table(path)
    yield _group(
        table,
        "latency_us",
        1e-6,
        dense(table),
        table.number("m"),
        name="matrix product: FP8, dense",
        operation="matmul",
        cluster="h800",
        target=0.10,
    )


def _grouped(path: Path) -> Iterator[Group]:
    table = read_table(path)
    rows = table.number("tokens_per_expert") * table.number("num_local_experts")
    for column, half in (("up_proj_us", "up"), ("down_proj_us", "down")):
        yield _group(
            table,
            column,
            1e-6,
            grouped(table, half),
            rows,
            name=f"experts: {half} product alone, {'decode' if 'decode' in path.name else 'prefill'}",
            operation="experts",
            cluster="h800",
        )


def _experts(path: Path) -> Iterator[Group]:
    large = "context" in path.name
    whole = read_table(path)
    uniform = np.array([text == "uniform" for text in whole.text("distribution")])
    for routing, table in (("uniform", whole.rows(uniform)), ("power law", whole.rows(~uniform))):
        if not len(table):
            continue
        predict = (experts_large if large else experts_small)(table)
        rows = table.number("num_tokens") * table.number("topk") / table.number("moe_ep_size")
        yield _group(
            table,
            "latency",
            1e-3,
            predict,
            rows,
            name=f"experts: {'prefill' if large else 'decode'}, {routing}",
            operation="experts",
            target=0.15,
        )


def _low_latency(path: Path) -> Iterator[Group]:
    table = read_table(path)
    for phase in ("dispatch", "combine"):
        yield _group(
            table,
            f"{phase}_avg_t_us",
            1e-6,
            low_latency(table, phase),
            8 * table.number("node_num"),
            name=f"{phase}: low-latency, 1-8 nodes",
            operation=phase,
            target=0.15,
        )


_SUSPECT_EP64 = "2.3 x off the bandwidth that the kernels' authors publish (README of the data)"


def _normal(path: Path) -> Iterator[Group]:
    whole = read_table(path)
    doubted = whole.number("node_num") >= 8
    for phase in ("dispatch", "combine"):
        for suspect, table in ((False, whole.rows(~doubted)), (True, whole.rows(doubted))):
            if not len(table):
                continue
            yield _group(
                table,
                (f"{phase}_notify_us", f"{phase}_transmit_us"),
                1e-6,
                normal(table, phase),
                8 * table.number("node_num"),
                name=f"{phase}: normal, {'8 nodes' if suspect else '1-4 nodes'}",
                operation=phase,
                target=None if suspect else 0.15,
                suspect=_SUSPECT_EP64 if suspect else None,
            )


def _collective(path: Path) -> Iterator[Group]:
    table = read_table(path)
    yield _group(
        table,
        "latency",
        1e-3,
        collective(table),
        table.number("message_size"),
        name="collective: NCCL inside a node",
        operation="collective",
    )


def _attention(path: Path) -> Iterator[Group]:
    table = read_table(path)
    if "seq_len" in table.columns:
        pairs = table.number("seq_len") ** 2 / 2
        core, name = latent_prefill_core(table), "attention: MLA prefill core"
    else:
        pairs = table.number("batch_size") * table.number("kv_len")
        core, name = latent_decode_core(table), "attention: MLA decode core"
    yield _group(table, "latency_us", 1e-6, core, pairs, name=name, operation="attention", cluster="h800")


def _attention_layer(path: Path) -> Iterator[Group]:
    table = read_table(path)
    prefill = "context" in path.name
    tokens, length = table.number("batch_size"), table.number("isl")
    yield _group(
        table,
        "latency",
        1e-3,
        (latent_prefill_layer if prefill else latent_decode_layer)(table),
        tokens * length * (length / 2 if prefill else 1),
        name=f"attention: MLA {'prefill' if prefill else 'decode'}, whole layer",
        operation="attention",
    )


_TABLES: tuple[tuple[str, Callable[[Path], Iterator[Group]]], ...] = (
    ("infersim_gemm_h800_data.csv", _dense),
    (_AIC + "moe_sglang_0.5.10_wideep_generation_moe_perf.csv", _experts),
    (_AIC + "moe_sglang_0.5.10_wideep_context_moe_perf.csv", _experts),
    ("infersim_grouped_gemm_decode_h800_data.csv", _grouped),
    ("infersim_grouped_gemm_prefill_h800_data.csv", _grouped),
    (_AIC + "comm_sglang_0.5.6.post2_wideep_deepep_ll_perf.csv", _low_latency),
    (_AIC + "comm_sglang_0.5.6.post2_wideep_deepep_normal_perf.csv", _normal),
    (_AIC + "comm_nccl_2.29.2_nccl_perf.csv", _collective),
    ("infersim_mla_decode_h800_128-512-64.csv", _attention),
    ("infersim_mla_prefill_h800_128-128-64.csv", _attention),
    (_AIC + "mla_sglang_0.5.10_wideep_generation_mla_perf.csv", _attention_layer),
    (_AIC + "mla_sglang_0.5.10_wideep_context_mla_perf.csv", _attention_layer),
)
