"""The page of a comparison: one step, predicted and measured, figure beside figure and timeline above timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wingspan.report.figures import Figure, axis, figure, row_axis
from wingspan.report.page import Page, Section, Table, Tile
from wingspan.report.palette import ACROSS_NODES, QUIET
from wingspan.report.ranks import representative
from wingspan.report.run_page import drawn_text
from wingspan.report.step_accounts import SUMS, Entry, comparison
from wingspan.report.step_figures import expert_load
from wingspan.report.step_page import near_section
from wingspan.report.timeline import both_close_up, both_steps
from wingspan.report.units import bytes_text, rate_text, seconds_text, share_text, time_scale
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline

_SEES = {
    "time of the mean rank": "What computes, transfers as far as nothing hides them, and waiting add up to the "
    "step. An error is the prediction's, as a share of what was measured.",
    "bytes that all ranks send in the step": "Rows of dispatch and combine to other ranks.",
    "memory of the mean rank": "A part that one side has not, it cannot tell from others, or did not hold.",
    "load": "What the step's tokens chose.",
}


def compare_page(
    predicted: StepReport,
    measured: StepReport,
    predicted_timeline: RunTimeline,
    measured_timeline: RunTimeline,
    conditions: Mapping[str, str],
    remarks: Sequence[str] = (),
) -> Page:
    """All pictures of a comparison.

    Args:
        predicted, measured: the same step.
        predicted_timeline, measured_timeline: of the ranks to choose from, with all steps that ran.
        conditions: what a reader must know of the deployment to trust the figures.
        remarks: what compares in part, and why.
    """
    groups = comparison(predicted, measured)
    return Page(
        title=f"One {measured.phase} step on {measured.ranks} ranks, predicted and {measured.source}",
        subtitle=f"{measured.schedule} schedule; measured: means of {measured.steps} steps",
        tiles=_tiles(groups),
        conditions=conditions,
        sections=[
            *_timelines(measured, predicted_timeline, measured_timeline),
            *(_group(title, entries) for title, entries in groups.items()),
            *_load(measured),
        ],
        notes=[*remarks, *measured.notes, *predicted.notes],
    )


def _tiles(groups: Mapping[str, Sequence[Entry]]) -> list[Tile]:
    entries = {entry.name: entry for group in groups.values() for entry in group}
    wanted = {
        "step": "Step time",
        "exposed communication": "Exposed communication",
        "expert": "Experts",
        "across nodes": "Sent across nodes",
        "tokens per second": "Tokens/s",
    }
    found = ((title, entries[name]) for name, title in wanted.items() if name in entries)
    return [
        Tile(
            title,
            _text(each.measured, each.unit),
            f"predicted {_text(each.predicted, each.unit)}{_beside(each)}",
        )
        for title, each in found
        if each.predicted or each.measured
    ]


def _beside(entry: Entry) -> str:
    return "" if entry.error is None else f": {_error(entry)}"


def _timelines(measured: StepReport, one: RunTimeline, other: RunTimeline) -> list[Section]:
    number = other.median_step(measured.phase)
    if number is None:
        return []
    step = other.only(measured.phase, number)
    predicted, ran = one.spans, step.spans
    ranks = representative(measured, {span.rank for span in predicted} & {span.rank for span in ran})
    drawn = drawn_text(other, measured.phase)
    sections = []
    near = both_close_up(predicted, ran, ranks)
    if near is not None:
        see = (
            "What each rank computes and sends, the prediction above the measurement, both from the begin of the "
            f"first layer. Grey is waiting for slower ranks. {drawn}"
        )
        sections.append(near_section(near, see.strip()))
    sections.append(
        Section(
            "The whole step",
            "Both from their begins, on one axis. Ranks are the measured step's slowest, a median and its fastest.",
            both_steps(predicted, ran, ranks, step.ended_seconds),
        )
    )
    return sections


def _group(title: str, entries: Sequence[Entry]) -> Section:
    rows = [
        [entry.name, _text(entry.predicted, entry.unit), _text(entry.measured, entry.unit), _error(entry)]
        for entry in entries
    ]
    return Section(
        title[0].upper() + title[1:],
        _SEES[title],
        _bars([entry for entry in entries if entry.unit and entry.name not in SUMS]),
        Table(("", "predicted", "measured", "error"), rows),
    )


def _bars(entries: Sequence[Entry]) -> Figure | None:
    """Both figures of every entry, in bars beside each other; None where there is nothing to draw."""
    most = max((max(entry.predicted or 0, entry.measured or 0) for entry in entries), default=0)
    if not most:
        return None
    seconds = entries[0].unit == "s"
    scale, unit = time_scale(most) if seconds else (1 / 1e9, "GB") if most >= 1e9 else (1 / 1e6, "MB")
    shown = [e for e in entries if max(e.predicted or 0, e.measured or 0) > 0.001 * most]
    names = [entry.name.replace(" (transfer)", "") for entry in shown]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": of,
            "y": names,
            "x": [(getattr(entry, of) or 0) * scale for entry in shown],
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": f"%{{y}}, {of}: %{{x:.3g}} {unit}<extra></extra>",
        }
        for of, colour in (("predicted", QUIET), ("measured", ACROSS_NODES))
    ]
    return figure(
        data,
        height=110 + 34 * len(names),
        barmode="group",
        bargap=0.3,
        xaxis=axis(f"{'time in the step' if seconds else 'size'}, {unit}", rangemode="tozero"),
        yaxis=row_axis(names),
    )


def _load(measured: StepReport) -> list[Section]:
    picture = expert_load(measured)
    see = (
        "Each row is a MoE layer, each column an expert, as measured. The hottest expert of a layer gets "
        f"{measured.imbalance:.2f} times the mean, averaged over layers."
    )
    return [] if picture is None else [Section("Load of the experts", see, picture)]


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return {"s": seconds_text, "bytes": bytes_text}.get(unit, rate_text)(value)


def _error(entry: Entry) -> str:
    if entry.error is None:
        return "-"
    return f"{'+' if entry.error > 0 else ''}{share_text(entry.error)}"
