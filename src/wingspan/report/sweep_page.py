"""The page of a sweep: throughput, step time, efficiency and exposed communication over what was varied."""

from __future__ import annotations

from wingspan.report import sweep_figures as figures
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.sweep_figures import EFFICIENCY, EXPOSED, STEP, THROUGHPUT, Metric
from wingspan.report.units import bytes_text, count_text, seconds_text, share_text
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult

_DARK = "Dark is much, light is little."


def sweep_page(result: SweepResult) -> Page:
    """All pictures of one sweep; the first axis of numbers runs along the pictures."""
    along = next((axis for axis in result.axes if axis.numeric), result.axes[0])
    level = "Higher is better. Over EP sizes, a level line is linear scaling."
    latency = "Lower is better: in decode it is the time between two tokens of a sequence."
    sections = [
        *_findings(result),
        _pictured(result, along, THROUGHPUT, "Throughput per GPU", level),
        *_map(result, along),
        _pictured(result, along, STEP, "Step time", latency),
    ]
    if any(point.parallel_efficiency is not None for point in result.points):
        whole = f"100 % is {result.efficiency_of}."
        sections.append(_pictured(result, along, EFFICIENCY, "Parallel efficiency", whole))
    waiting = "Share of the step in which the mean rank waits for transfers with nothing to compute; lower is better."
    sections.append(_pictured(result, along, EXPOSED, "Exposed communication", waiting))
    sections.append(_numbers(result))
    return Page(
        title=f"Sweep over {_names(result.axes)}",
        subtitle=f"{len(result.points)} predictions",
        tiles=_tiles(result),
        conditions=result.conditions,
        sections=sections,
        notes=result.notes,
    )


def headings(result: SweepResult) -> list[str]:
    """Of the table of all points: the axes, then what `figures_of` gives."""
    return [
        *(axis.label.split(",")[0] for axis in result.axes),
        "step",
        "tokens/s",
        "per GPU",
        "efficiency",
        "exposed",
        "hottest / mean",
        "peak memory",
        "fits",
        "most time",
    ]


def figures_of(point: SweepPoint) -> list[str]:
    """A point's figures as text, in the order of the headings."""
    return [
        seconds_text(point.step_seconds),
        count_text(point.tokens_per_second),
        count_text(point.tokens_per_second_per_gpu),
        "-" if point.parallel_efficiency is None else share_text(point.parallel_efficiency),
        share_text(point.exposed_share),
        f"{point.imbalance:.2f}",
        bytes_text(point.peak_memory_bytes),
        "yes" if point.fits else "no",
        point.bound_by.replace("_", " "),
    ]


def _names(axes: list[SweepAxis]) -> str:
    return " and ".join(axis.label.split(",")[0] for axis in axes)


def _tiles(result: SweepResult) -> list[Tile]:
    fitting = [point for point in result.points if point.fits]
    fit = Tile("Fit into memory", f"{len(fitting)} of {len(result.points)}", "points")
    if not fitting:
        return [fit]
    best = max(fitting, key=lambda point: point.tokens_per_second_per_gpu)
    quickest = min(fitting, key=lambda point: point.step_seconds)
    most = f"{count_text(best.tokens_per_second_per_gpu)} tokens/s"
    return [
        Tile("Best throughput per GPU", most, _at(result, best)),
        Tile("Shortest step", seconds_text(quickest.step_seconds), _at(result, quickest)),
        fit,
    ]


def _at(result: SweepResult, point: SweepPoint) -> str:
    return ", ".join(f"{axis.label.split(',')[0]} {point.at[axis.name]}" for axis in result.axes)


def _findings(result: SweepResult) -> list[Section]:
    return [Section("What the points say together", points=result.findings)] if result.findings else []


def _map(result: SweepResult, along: SweepAxis) -> list[Section]:
    """A heat map beside the lines, where there are two axes."""
    if len(result.axes) != 2 or not figures.reads_as_lines(result, along):
        return []
    other = next(axis for axis in result.axes if axis is not along)
    cells = figures.heat_map(result, THROUGHPUT, along, other)
    return [Section("Throughput per GPU, as a map", f"Tokens/s; higher is better. {_DARK}", figure=cells)]


def _pictured(result: SweepResult, along: SweepAxis, metric: Metric, title: str, see: str) -> Section:
    """Lines where they can be told apart, else a heat map of two axes, else some of the lines."""
    others = [axis for axis in result.axes if axis is not along]
    readable = figures.reads_as_lines(result, along)
    if len(others) == 1 and not readable:
        return Section(title, f"{see} {_DARK}", figure=figures.heat_map(result, metric, along, others[0]))
    remarks = []
    if not readable:
        remarks.append("Some lines are left out, to tell the others apart; the table has all.")
    if not all(point.fits for point in result.points):
        remarks.append("Hollow points do not fit into the GPU's memory.")
    return Section(title, see, figure=figures.lines(result, metric, along, others), caption=" ".join(remarks))


def _numbers(result: SweepResult) -> Section:
    rows = [[*(str(point.at[a.name]) for a in result.axes), *figures_of(point)] for point in result.points]
    return Section("All numbers", "One row for each prediction.", table=Table(headings(result), rows))
