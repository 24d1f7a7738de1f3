"""The page of a sweep: throughput, step time, efficiency and exposed communication over what was varied."""

from __future__ import annotations

import itertools

from wingspan.report import sweep_figures as figures
from wingspan.report.page import Banner, Page, Section, Table, Tile
from wingspan.report.sweep_figures import EFFICIENCY, EXPERTS, EXPOSED, STEP, THROUGHPUT, Metric
from wingspan.report.units import bytes_text, count_text, seconds_text, share_text, value_text
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult

_CROSSED = "✗: does not fit into the GPU's memory."
_MOST_MAPS = 8


def sweep_page(result: SweepResult) -> Page:
    """All pictures of one sweep; the last axis of numbers runs along the pictures."""
    along = next((axis for axis in reversed(result.axes) if axis.numeric), result.axes[-1])
    level = "Higher is better. Over EP sizes, a level line is linear scaling."
    latency = "Lower is better: in decode it is the time between two tokens of a sequence."
    whole = (
        "100 % would be evenly loaded ranks and free transfers: no time lost to skew, links or contention."
    )
    waiting = (
        "Share of the step in which the mean rank has nothing to compute: it waits for a transfer, or for slower "
        "ranks. Lower is better."
    )
    if len(result.points) == 1:
        return _page(result, [*_findings(result), _numbers(result)])
    sections = [
        *_findings(result),
        *_best_experts(result),
        *_pictured(result, along, THROUGHPUT, "Throughput per GPU", level),
        *_maps(result, along),
        *_pictured(result, along, STEP, "Step time", latency),
        *_pictured(result, along, EFFICIENCY, "Parallel efficiency", whole),
        *_pictured(result, along, EXPOSED, "Exposed communication", waiting),
        _numbers(result),
    ]
    return _page(result, sections)


def _page(result: SweepResult, sections: list[Section]) -> Page:
    return Page(
        title=f"Sweep over {_names(result.axes)}",
        subtitle="one prediction" if len(result.points) == 1 else f"{len(result.points)} predictions",
        tiles=_tiles(result),
        conditions=result.conditions,
        sections=sections,
        notes=result.notes,
        banner=_banner(result),
    )


def headings(result: SweepResult) -> list[str]:
    """The headings of the table of all points: the axes, then what `figures_of` gives."""
    return [
        *(axis.label.split(",")[0] for axis in result.axes),
        "step",
        "tokens/s",
        "per GPU",
        *(["price of a million"] if _priced(result) else []),
        "efficiency",
        "exposed",
        "hottest / mean",
        "peak memory",
        "fits",
        "most time",
    ]


def figures_of(point: SweepPoint) -> list[str]:
    """A point's figures as text, in the order of the headings."""
    price = point.price_per_million_tokens
    return [
        seconds_text(point.step_seconds),
        count_text(point.tokens_per_second),
        count_text(point.tokens_per_second_per_gpu),
        *([] if price is None else [f"{price:.3g}"]),
        share_text(point.parallel_efficiency),
        share_text(point.exposed_share),
        f"{point.imbalance:.2f}",
        bytes_text(point.peak_memory_bytes),
        "yes" if point.fits else "no",
        point.bound_by.replace("_", " "),
    ]


def _priced(result: SweepResult) -> bool:
    return any(point.price_per_million_tokens is not None for point in result.points)


def _banner(result: SweepResult) -> Banner | None:
    if any(point.fits for point in result.points):
        return None
    least = min(result.points, key=lambda point: point.peak_memory_bytes)
    return Banner(
        "Nothing here fits into the memory of a GPU",
        [
            f"The least is needed at {_at(result, least)}: {bytes_text(least.peak_memory_bytes)}. All figures "
            "below say what would be, were there room. Give smaller batches or contexts, or more GPUs."
        ],
    )


def _names(axes: list[SweepAxis]) -> str:
    names = [axis.label.split(",")[0] for axis in axes]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _tiles(result: SweepResult) -> list[Tile]:
    fitting = [point for point in result.points if point.fits]
    fit = Tile("Fit into memory", f"{len(fitting)} of {len(result.points)}", "points")
    if not fitting:
        return [fit]
    best = max(fitting, key=lambda point: point.tokens_per_second_per_gpu)
    quickest = min(fitting, key=lambda point: point.step_seconds)
    most = f"{count_text(best.tokens_per_second_per_gpu)} tokens/s"
    price = best.price_per_million_tokens
    cost = (
        [] if price is None else [Tile("Price of a million tokens", f"{price:.3g}", "at the best throughput")]
    )
    return [
        Tile("Best throughput per GPU", most, _at(result, best)),
        *cost,
        Tile("Shortest step", seconds_text(quickest.step_seconds), _at(result, quickest)),
        fit,
    ]


def _at(result: SweepResult, point: SweepPoint) -> str:
    return ", ".join(f"{axis.label.split(',')[0]} {value_text(point.at[axis.name])}" for axis in result.axes)


def _findings(result: SweepResult) -> list[Section]:
    return [Section("What the points say together", points=result.findings)] if result.findings else []


def _maps(result: SweepResult, along: SweepAxis) -> list[Section]:
    """Where lines cannot be told apart: heat maps over the last two axes, one for each combination of the others."""
    if len(result.axes) < 3 or figures.reads_as_lines(result, along):
        return []
    # One map for each number of experts per GPU, rather than for each batch.
    *outer, down, across = sorted(result.axes, key=lambda axis: axis.name != "experts_per_rank")
    combinations = list(itertools.product(*(axis.values for axis in outer)))
    if len(combinations) > _MOST_MAPS:
        return []
    sections = []
    for values in combinations:
        where = {axis.name: value for axis, value in zip(outer, values, strict=True)}
        points = [p for p in result.points if where.items() <= p.at.items()]
        if points:
            named = ", ".join(f"{axis.label.split(',')[0]} {value_text(where[axis.name])}" for axis in outer)
            title = f"Throughput per GPU: {named}"
            cells = figures.heat_map(result, points, THROUGHPUT, across, down)
            fit = all(point.fits for point in points)
            see = f"Tokens/s. {THROUGHPUT.shade}"
            sections.append(Section(title, see, cells, caption="" if fit else _CROSSED))
    return sections


def _best_experts(result: SweepResult) -> list[Section]:
    """Show over two more axes, of which the last varies, which number of experts per GPU gives most."""
    names = [axis.name for axis in result.axes]
    others = [axis for axis in result.axes if axis.name != "experts_per_rank"]
    if "experts_per_rank" not in names or len(others) != 2:
        return []
    down, across = others
    return [
        Section(
            "Best number of experts per GPU",
            "1 is wide expert parallelism. Same GPUs and same tokens on each GPU; only how many experts a GPU holds, "
            f"and with it how many GPUs a token's experts are spread over, differs. {EXPERTS.shade}",
            figures.heat_map(result, figures.best_points(result, others), EXPERTS, across, down),
            caption=f"Points that do not fit into memory count only where none fits. {_CROSSED}",
        )
    ]


def _pictured(result: SweepResult, along: SweepAxis, metric: Metric, title: str, see: str) -> list[Section]:
    """Lines where they can be told apart, else a heat map of two axes; of more axes there is no picture."""
    others = [axis for axis in result.axes if axis is not along]
    fit = all(point.fits for point in result.points)
    if figures.reads_as_lines(result, along):
        caption = "" if fit else "Hollow points do not fit into the GPU's memory."
        return [Section(title, see, figures.lines(result, metric, along, others), caption=caption)]
    if len(others) == 1:
        cells = figures.heat_map(result, result.points, metric, along, others[0])
        return [Section(title, f"{see} {metric.shade}", cells, caption="" if fit else _CROSSED)]
    return []


def _numbers(result: SweepResult) -> Section:
    rows = [
        [*(value_text(point.at[a.name]) for a in result.axes), *figures_of(point)] for point in result.points
    ]
    return Section("All numbers", "One row for each prediction.", table=Table(headings(result), rows))
