"""Pictures of a sweep: one figure as lines over an axis, or as a heat map over two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wingspan.report.figures import Figure, axis, figure, value_axis
from wingspan.report.palette import HEAT, PAPER, series
from wingspan.report.units import count_text, seconds_text, share_text, value_text
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult, Value


@dataclass(frozen=True)
class Metric:
    """One figure of a point: title with unit, how to get and print it, whether it is a share of a whole, and which
    shade of a heat map is the better one."""

    title: str
    of: Callable[[SweepPoint], float | None]
    text: Callable[[float], str]
    scale: float = 1.0
    share: bool = False
    shade: str = "Dark is much, and better."


_LIGHT = "Light is better: dark is much."
THROUGHPUT = Metric("tokens/s per GPU", lambda p: p.tokens_per_second_per_gpu, count_text)
STEP = Metric("step time, ms", lambda p: p.step_seconds, seconds_text, scale=1e3, shade=_LIGHT)
EFFICIENCY = Metric(
    "parallel efficiency, %", lambda p: p.parallel_efficiency, share_text, scale=100, share=True
)
EXPERTS = Metric(
    "experts per GPU",
    lambda p: p.experts_per_rank,
    lambda count: f"{count:.0f}",
    shade="Dark is many; neither is better.",
)
EXPOSED = Metric(
    "exposed communication, % of step",
    lambda p: p.exposed_share,
    share_text,
    scale=100,
    share=True,
    shade=_LIGHT,
)

_MOST_LINES = 9
"""The palette has as many colours; more lines would repeat one."""


def lines(result: SweepResult, metric: Metric, along: SweepAxis, by: list[SweepAxis]) -> Figure:
    """The metric over one axis, one line for each combination of the other axes' values.

    Points that do not fit into memory are drawn hollow.
    """
    groups: dict[tuple[Value, ...], list[SweepPoint]] = {}
    for point in result.points:
        groups.setdefault(tuple(point.at[other.name] for other in by), []).append(point)
    data: list[dict[str, Any]] = []
    for number, (combination, points) in enumerate(groups.items()):
        known = [point for point in points if metric.of(point) is not None]
        colour = series(number)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": ", ".join(_named(other, value) for other, value in zip(by, combination, strict=True)),
                "x": [point.at[along.name] for point in known],
                "y": [(metric.of(point) or 0.0) * metric.scale for point in known],
                "line": {"color": colour, "width": 2},
                "marker": {
                    "size": 8,
                    "color": [colour if point.fits else PAPER for point in known],
                    "line": {"color": colour, "width": 2},
                },
                "hovertext": [_hover(result, point) for point in known],
                "hoverinfo": "text",
            }
        )
    values = [value for line in data for value in line["y"]]
    height = axis(metric.title, rangemode="tozero") if metric.share else value_axis(metric.title, values)
    return figure(data, height=380, xaxis=_along(along), yaxis=height)


def heat_map(
    result: SweepResult, points: Sequence[SweepPoint], metric: Metric, across: SweepAxis, down: SweepAxis
) -> Figure:
    """The metric as one cell for each pair of values; where a pair has no point, the cell stays empty."""
    cells = {(point.at[across.name], point.at[down.name]): point for point in points}
    values = [[_value(cells.get((x, y)), metric) for x in across.values] for y in down.values]
    data = [
        {
            "type": "heatmap",
            "z": values,
            "colorscale": [list(stop) for stop in HEAT],
            "xgap": 2,
            "ygap": 2,
            "showscale": False,
            "text": [[_cell(cells.get((x, y)), metric) for x in across.values] for y in down.values],
            "texttemplate": "%{text}",
            "hovertext": [
                [_hover(result, cells[x, y]) if (x, y) in cells else "" for x in across.values]
                for y in down.values
            ],
            "hoverinfo": "text",
        }
    ]
    return figure(
        data,
        height=110 + 44 * len(down.values),
        margin={"l": 56, "r": 20, "t": 12, "b": 52},
        xaxis=axis(across.label, showgrid=False, **_named_ticks(across)),
        yaxis=axis(down.label.split(",")[0], showgrid=False, autorange="reversed", **_named_ticks(down)),
    )


def _cell(point: SweepPoint | None, metric: Metric) -> str:
    value = metric.of(point) if point else None
    if point is None or value is None:
        return ""
    return metric.text(value) + ("" if point.fits else " ✗")


def best_points(result: SweepResult, over: Sequence[SweepAxis]) -> list[SweepPoint]:
    """The point of highest throughput per GPU at each combination of `over`; unfit ones only where none fits."""
    best: dict[tuple[Value, ...], SweepPoint] = {}
    for point in result.points:
        key = tuple(point.at[axis.name] for axis in over)
        if key not in best or _goodness(point) > _goodness(best[key]):
            best[key] = point
    return list(best.values())


def _goodness(point: SweepPoint) -> tuple[bool, float]:
    return point.fits, point.tokens_per_second_per_gpu


def _named_ticks(of: SweepAxis) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(of.values))),
        "ticktext": [value_text(value) for value in of.values],
    }


def reads_as_lines(result: SweepResult, along: SweepAxis) -> bool:
    """Whether lines over `along` are few enough to tell apart."""
    others = 1
    for other in result.axes:
        if other is not along:
            others *= len(other.values)
    return others <= _MOST_LINES


def _value(point: SweepPoint | None, metric: Metric) -> float | None:
    raw = metric.of(point) if point else None
    return None if raw is None else raw * metric.scale


def _along(of: SweepAxis) -> dict[str, Any]:
    if not of.numeric:
        return axis(of.label, type="category")
    numbers = [float(value) for value in of.values]
    wide = min(numbers) > 0 and max(numbers) / min(numbers) >= 8
    ticks = {"tickmode": "array", "tickvals": numbers, "ticktext": [f"{number:g}" for number in numbers]}
    return axis(of.label, **({"type": "log"} if wide else {}), **ticks)


def _named(of: SweepAxis, value: Value) -> str:
    return str(value) if isinstance(value, str) else f"{of.label.split(',')[0]} {value:g}"


def _hover(result: SweepResult, point: SweepPoint) -> str:
    where = ", ".join(f"{of.label.split(',')[0]} {value_text(point.at[of.name])}" for of in result.axes)
    parts = [
        f"<b>{where}</b>",
        f"step {seconds_text(point.step_seconds)}, {count_text(point.tokens_per_second)} tokens/s "
        f"({count_text(point.tokens_per_second_per_gpu)} per GPU)",
        f"exposed communication {share_text(point.exposed_share)}, hottest expert {point.imbalance:.2f} x mean",
    ]
    parts.append(f"parallel efficiency {share_text(point.parallel_efficiency)}, {point.schedule} schedule")
    if point.bound_by:
        parts.append(f"most of the time: {point.bound_by.replace('_', ' ')}")
    if not point.fits:
        parts.append("does not fit into the GPU's memory")
    return "<br>".join(parts)
