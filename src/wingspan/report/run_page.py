"""The page of a run: its mean step, the timeline of one that it made, every step's length, and what was moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wingspan.report.figures import Figure, axis, figure
from wingspan.report.page import Page, Section
from wingspan.report.palette import ACROSS_NODES, LIMIT, QUIET
from wingspan.report.ranks import representative
from wingspan.report.rebalance import lines
from wingspan.report.step_page import operation_table, step_page
from wingspan.report.timeline import whole_step
from wingspan.report.units import rate_text, seconds_text, time_scale, whole_text
from wingspan.schedule.rebalance_result import Migrated, RebalanceEvent
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline


def run_page(
    report: StepReport,
    prefill: StepReport | None,
    timeline: RunTimeline,
    events: Sequence[RebalanceEvent] | None,
    conditions: Mapping[str, str],
) -> Page:
    """All pictures of a run.

    Args:
        report: the mean step of the phase that the page is of.
        prefill: the prompts' step, where the page is of decode.
        timeline: of all ranks and steps.
        events: the log of live balancing; None where it was off.
        conditions: model, ranks, prompts: what a reader must know to trust the figures.
    """
    number = timeline.median_step(report.phase)
    drawn = timeline if number is None else timeline.only(report.phase, number)
    page = step_page(
        report,
        conditions,
        spans=drawn.spans,
        drawn=drawn_text(timeline, report.phase),
        ended_seconds=drawn.ended_seconds,
        more=[
            *_steps(timeline, report.phase, number, events or ()),
            *([] if events is None else [_balancing(events)]),
        ],
    )
    return page if prefill is None else replace(page, sections=[*page.sections, _prefill(prefill, timeline)])


def drawn_text(timeline: RunTimeline, phase: str) -> str:
    """Which of a phase's steps is drawn, and why; nothing where there is but one."""
    seconds, number = timeline.step_seconds(phase), timeline.median_step(phase)
    if number is None or len(seconds) == 1:
        return ""
    return (
        f"Drawn is {phase} step {number} of {len(seconds)}, the one of median length "
        f"({seconds_text(seconds[number])}); figures below are means of all."
    )


def _steps(
    timeline: RunTimeline, phase: str, drawn: int | None, events: Sequence[RebalanceEvent]
) -> list[Section]:
    seconds = timeline.step_seconds(phase)
    if drawn is None or len(seconds) < 2:
        return []
    moved = [event for event in events if isinstance(event, Migrated)]
    shaded = " Shaded: experts were being moved." if moved else ""
    longest = max(seconds, key=lambda number: seconds[number])
    return [
        Section(
            f"Every {phase} step",
            f"From {seconds_text(min(seconds.values()))} to {seconds_text(seconds[longest])} (step {longest}), by the "
            f"rank that took longest. The dark one is drawn above.{shaded}",
            _steps_figure(seconds, phase, drawn, moved),
        )
    ]


def _steps_figure(seconds: dict[int, float], phase: str, drawn: int, moved: Sequence[Migrated]) -> Figure:
    scale, unit = time_scale(max(seconds.values()))
    bars: dict[str, Any] = {
        "type": "bar",
        "x": list(seconds),
        "y": [each * scale for each in seconds.values()],
        "marker": {
            "color": [ACROSS_NODES if number == drawn else QUIET for number in seconds],
            "line": {"width": 0},
        },
        "hovertemplate": f"{phase} step %{{x}}: %{{y:.3g}} {unit}<extra></extra>",
    }
    shapes = [
        {
            "type": "rect",
            "layer": "below",
            "x0": migration.first_step + 0.5,
            "x1": migration.last_step + 0.5,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "fillcolor": LIMIT,
            "opacity": 0.18,
            "line": {"width": 0},
        }
        for migration in moved
    ]
    return figure(
        [bars],
        height=240,
        bargap=0.15,
        shapes=shapes,
        xaxis=axis(f"{phase} step", showgrid=False),
        yaxis=axis(f"length, {unit}", rangemode="tozero"),
    )


def _balancing(events: Sequence[RebalanceEvent]) -> Section:
    points = lines(events)
    moved = sum(event.experts_moved for event in events if isinstance(event, Migrated))
    see = f"{moved} experts moved while steps went on. What was decided, and what came of it:"
    return Section(
        "Live balancing",
        see if points else "The run ended before the first decision.",
        points=points,
    )


def _prefill(report: StepReport, timeline: RunTimeline) -> Section:
    number = timeline.median_step("prefill")
    step = RunTimeline() if number is None else timeline.only("prefill", number)
    ranks = representative(report, {span.rank for span in step.spans})
    shown = ", ".join(f"rank {rank} ({name})" for rank, name in ranks.items())
    return Section(
        "The prefill",
        f"The step before: {whole_text(report.tokens)} tokens of the prompts in {seconds_text(report.step_seconds)}, "
        f"{rate_text(report.tokens_per_second)} tokens/s. Shown: {shown}. {drawn_text(timeline, 'prefill')}".strip(),
        whole_step(step.spans, ranks, step.ended_seconds) if ranks else None,
        operation_table(report),
    )
