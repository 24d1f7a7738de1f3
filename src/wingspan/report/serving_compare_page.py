"""The page of a server beside its simulation: latencies and throughput at every load, predicted and measured."""

from __future__ import annotations

from wingspan.report.figures import Figure, axis, figure
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.palette import ACROSS_NODES, QUIET
from wingspan.report.units import rate_text, seconds_text, share_text, time_scale
from wingspan.schedule.serving_comparison import Compared, ServingComparison

_SEES = {
    "time to first token": "From sending a request to its first token: it waits for the step that runs, perhaps for a "
    "place, and its prompt is computed.",
    "time per output token": "Between the tokens of one request, in the mean: the steps that decode, and prompts "
    "of others computed in them.",
    "output tokens/s": "While requests still arrive.",
    "step": "From a step's begin to the next one's.",
    "sequences that decode": "In a step, over all ranks.",
}


def serving_compare_page(found: ServingComparison) -> Page:
    """All pictures of a comparison."""
    errors = [
        abs(figure.error) for load in found.loads for figure in load.figures if figure.error is not None
    ]
    return Page(
        title="A server under load, predicted and measured",
        subtitle=f"{len(found.loads)} loads, {len(found.loads[0].rounds)} rounds; medians of the rounds",
        tiles=[
            Tile("Highest load", f"{found.highest_requests_per_second:.3g} requests/s", "every place taken"),
            Tile("Largest error", share_text(max(errors)), f"of {len(errors)} figures"),
            Tile("Steps measured", f"{found.measured_steps:,}", "from which the prediction is made"),
        ],
        conditions=found.conditions,
        sections=[_section(found, title, see) for title, see in _SEES.items()],
        notes=found.notes,
    )


def _section(found: ServingComparison, title: str, see: str) -> Section:
    figures = [(load, one) for load in found.loads for one in load.figures if one.name.startswith(title)]
    rows = [
        [
            f"{load.requests_per_second:.2f} requests/s{one.name.removeprefix(title)}",
            _text(one, one.predicted),
            _text(one, one.measured),
            error_text(one),
        ]
        for load, one in figures
    ]
    names = [f"{load.share:.0%}{one.name.removeprefix(title)}" for load, one in figures]
    table = Table(("", "predicted", "measured", "error"), rows)
    return Section(title[0].upper() + title[1:], see, _bars(names, [one for _, one in figures]), table)


def _bars(names: list[str], figures: list[Compared]) -> Figure:
    """Both figures of every load, in bars beside each other."""
    seconds = figures[0].unit == "s"
    scale, unit = (
        time_scale(max(max(one.predicted, one.measured) for one in figures)) if seconds else (1.0, "")
    )
    data = [
        {
            "type": "bar",
            "name": of,
            "x": names,
            "y": [getattr(one, of) * scale for one in figures],
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": f"%{{x}}, {of}: %{{y:.3g}} {unit}<extra></extra>",
        }
        for of, colour in (("predicted", QUIET), ("measured", ACROSS_NODES))
    ]
    return figure(
        data,
        height=300,
        barmode="group",
        xaxis=axis("share of the highest load", type="category"),
        yaxis=axis(unit, rangemode="tozero"),
    )


def error_text(figure: Compared) -> str:
    """By how much the prediction is off, with its sign."""
    if figure.error is None:
        return "-"
    return f"{'+' if figure.error > 0 else ''}{share_text(figure.error)}"


def _text(figure: Compared, value: float) -> str:
    return seconds_text(value) if figure.unit == "s" else rate_text(value)
