"""Results as tables for a terminal, readable at 80 columns. Nothing is printed here: `cli` prints what it gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from wingspan.report.serving_page import limits_text
from wingspan.report.units import count_text, value_text
from wingspan.schedule.serving_result import LoadPoint, ServingReport
from wingspan.schedule.sweep_result import SweepPoint, SweepResult


def sweep_table(result: SweepResult) -> Table:
    """Every point; those that do not fit into memory in red."""
    table = _table(
        "eff.: parallel efficiency; exp.: mean rank has nothing to compute;\nhot: hottest expert / mean"
    )
    for axis in result.axes:
        _column(table, _SHORT.get(axis.name, axis.name), left=not axis.numeric)
    priced = any(point.price_per_million_tokens is not None for point in result.points)
    for name in ("step\nms", "tok/s\n/GPU", *(["price\n/M"] if priced else []), *_LATER):
        _column(table, name)
    for point in result.points:
        table.add_row(
            *(value_text(point.at[axis.name]) for axis in result.axes),
            *_sweep_figures(point),
            style=None if point.fits else "red",
        )
    return table


def serving_table(report: ServingReport) -> Table:
    """Every load; those that break a limit in red."""
    head = "offered, done, done within limits: requests/s; TTFT in s, TPOT in ms"
    table = _table(f"{head}\n{limits_text(report)}" if report.limits.any else head)
    latencies = ("TTFT\np50", "\np90", "\np99", "TPOT\np50", "\np90", "\np99")
    priced = any(point.price_per_million_output_tokens is not None for point in report.points)
    for name in (
        "offered",
        "done",
        "good",
        "output\ntok/s",
        *latencies,
        *(["cost of\n1 M out"] if priced else []),
    ):
        _column(table, name)
    for point in report.points:
        cost = point.price_per_million_output_tokens
        costs = [] if not priced else ["-" if cost is None else _short(cost)]
        table.add_row(*_serving_figures(point), *costs, style=None if point.meets_limits else "red")
    return table


def sentences(lines: Iterable[str]) -> list[Text]:
    """One bullet for each line."""
    return [Text(f"- {line}") for line in lines]


_LATER = ("eff.\n%", "exp.\n%", "hot", "GB", "fits")
_SHORT = {
    "experts_per_rank": "exp\n/GPU",
    "tokens_per_gpu": "batch\n/GPU",
    "total_sequences": "seqs",
    "bandwidth": "GB/s",
    "ranks": "EP",
    "gpus": "GPUs",
}


def _sweep_figures(point: SweepPoint) -> Sequence[str]:
    price = point.price_per_million_tokens
    return (
        _short(point.step_seconds * 1e3),
        _short(point.tokens_per_second_per_gpu),
        *([] if price is None else [f"{price:.3g}"]),
        f"{point.parallel_efficiency * 100:.1f}",
        f"{point.exposed_share * 100:.1f}",
        f"{point.imbalance:.2f}",
        f"{point.peak_memory_bytes / 1e9:,.1f}",
        "yes" if point.fits else "no",
    )


def _serving_figures(point: LoadPoint) -> Sequence[str]:
    ttft, tpot = point.ttft_seconds, point.tpot_seconds
    return (
        _short(point.offered_requests_per_second),
        _short(point.completed_requests_per_second),
        _short(point.goodput_requests_per_second),
        _short(point.output_tokens_per_second),
        *(_short(seconds) for seconds in (ttft.p50, ttft.p90, ttft.p99)),
        *(_short(seconds * 1e3) for seconds in (tpot.p50, tpot.p90, tpot.p99)),
    )


def _short(figure: float) -> str:
    """Three digits in five columns, as `12.3k`: eleven figures stand side by side."""
    return count_text(figure).replace(" ", "")


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )


def _column(table: Table, name: str, *, left: bool = False) -> None:
    table.add_column(name, justify="left" if left else "right", no_wrap=True)
