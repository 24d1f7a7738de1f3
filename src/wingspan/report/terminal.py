"""Results as tables for a terminal, readable at 80 columns. Nothing is printed here: `cli` prints what it gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from wingspan.report.columns import Column, aligned, counts_column, price_columns, seconds_column, table
from wingspan.report.serving_page import limits_text
from wingspan.report.units import value_text
from wingspan.schedule.serving_result import LoadPoint, Percentiles, ServingReport
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult

SWEEP_HEAD = (
    "eff.: parallel efficiency; exp.: the mean rank has nothing to compute; hot: hottest expert over the mean; "
    "GB: on the fullest GPU"
)
"""What the columns of a sweep's table are."""


def sweep_table(result: SweepResult, width: int) -> Table:
    """Every point, those that do not fit into memory in red; figures that find no room in `width` are in the CSV."""
    axes = [_axis_column(axis, result.points) for axis in result.axes]
    styles = [None if point.fits else "red" for point in result.points]
    return table([*axes, *_sweep_figures(result.points)], styles, width)


def serving_table(report: ServingReport, width: int) -> Table:
    """Every load; those that break a limit in red."""
    styles = [None if point.meets_limits else "red" for point in report.points]
    return table(_serving_figures(report.points), styles, width)


def serving_head(report: ServingReport) -> str:
    """What the columns of a table of loads are, and the limits."""
    head = "offered, done, good (done within all limits): requests/s"
    return f"{head}; {limits_text(report)}" if report.limits.any else head


def sentences(lines: Iterable[str]) -> list[Text]:
    """One bullet for each line; those that are equal share one, with their count."""
    counted: dict[str, int] = {}
    for line in lines:
        counted[line] = counted.get(line, 0) + 1
    return [Text(f"- {line}" + (f" ({count} times)" if count > 1 else "")) for line, count in counted.items()]


_SHORT = {
    "experts_per_rank": "exp\n/GPU",
    "tokens_per_gpu": "batch\n/GPU",
    "total_sequences": "seqs",
    "bandwidth": "GB/s",
    "ranks": "EP",
    "gpus": "GPUs",
}


def _axis_column(axis: SweepAxis, points: Sequence[SweepPoint]) -> Column:
    texts = [value_text(point.at[axis.name]) for point in points]
    return Column(_SHORT.get(axis.name, axis.name), texts, words=not axis.numeric)


def _sweep_figures(points: Sequence[SweepPoint]) -> list[Column]:
    step_unit, steps = seconds_column([point.step_seconds for point in points])
    rate_unit, rates = counts_column([point.tokens_per_second_per_gpu for point in points], widest=7)
    return [
        Column(f"step\n{step_unit}", steps),
        Column(f"{rate_unit}tok/s\n/GPU", rates),
        *price_columns("price\n/M", [point.price_per_million_tokens for point in points]),
        Column("eff.\n%", [f"{point.parallel_efficiency * 100:.1f}" for point in points], spared=1),
        Column("exp.\n%", [f"{point.exposed_share * 100:.1f}" for point in points], spared=2),
        Column("hot", [f"{point.imbalance:.2f}" for point in points], spared=4),
        Column("GB", aligned([point.peak_memory_bytes / 1e9 for point in points]), spared=3),
        Column("fits", ["yes" if point.fits else "no" for point in points]),
    ]


def _serving_figures(points: Sequence[LoadPoint]) -> list[Column]:
    rate_unit, rates = counts_column([point.output_tokens_per_second for point in points])
    return [
        Column("offered", aligned([point.offered_requests_per_second for point in points])),
        Column("done", aligned([point.completed_requests_per_second for point in points])),
        Column("good", aligned([point.goodput_requests_per_second for point in points])),
        Column(f"output\n{rate_unit}tok/s", rates),
        *_percentiles("TTFT", [point.ttft_seconds for point in points]),
        *_percentiles("TPOT", [point.tpot_seconds for point in points]),
        *price_columns("cost of\n1 M out", [point.price_per_million_output_tokens for point in points]),
    ]


def _percentiles(name: str, spreads: Sequence[Percentiles]) -> list[Column]:
    """Three columns in one unit."""
    levels = [[getattr(spread, level) for spread in spreads] for level in ("p50", "p90", "p99")]
    unit, texts = seconds_column([seconds for level in levels for seconds in level])
    count = len(spreads)
    return [
        Column(f"{above}\n{level}", texts[number * count : (number + 1) * count])
        for number, (above, level) in enumerate(((name, "p50"), (unit, "p90"), ("", "p99")))
    ]
