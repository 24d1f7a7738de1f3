"""What a person sees of predictions beside published engines: points, groups, trends, decisions."""

from __future__ import annotations

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.simulate.published.judge import Choosing, PointGroup, Trend
from wingspan.simulate.published.points import Kind, PublishedPoint
from wingspan.specs.execution import ScheduleKind


def show_published(
    where: str,
    points: list[PublishedPoint],
    refused: dict[str, list[str]],
    found: tuple[list[PointGroup], list[Trend], list[Choosing]],
) -> None:
    """Print everything; of exchanges alone the group only."""
    console = Console(highlight=False)
    groups, trends, decisions = found
    console.print(_points([point for point in points if point.kind is not Kind.EXCHANGE]))
    console.print(
        f"Published: {where}. j: judged on; f: constants were fitted on it (the CRC-32 of its id is even). "
        "Error of the predicted time, above 0 too slow; bar: of the prediction, * does not hold the published figure.",
        style="dim",
    )
    console.print()
    console.print(_groups(groups))
    console.print(
        "Of the judged points. Held: share that their bars hold; bar: its median half-width.", style="dim"
    )
    if trends:
        console.print()
        console.print(_trends(trends))
    if decisions:
        console.print()
        console.print(_decisions(decisions))
    for reason, ids in refused.items():
        console.print(f"[dim]not predicted ({len(ids)}): {reason}: {', '.join(ids)}[/dim]")
    for assumed in dict.fromkeys(a for p in points if p.setup for a in p.setup.assumed):
        of = [p.row.id for p in points if p.setup and assumed in p.setup.assumed]
        console.print(f"[dim]assumed: {assumed}: {', '.join(of)}[/dim]")


def _points(points: list[PublishedPoint]) -> Table:
    table = _table("figure", "what", "published", "predicted", "unit", "error", "bar")
    for point in points:
        row = point.row
        bar = (
            "" if point.relative_error is None else f"{point.relative_error:.0%}{'' if point.held else ' *'}"
        )
        table.add_row(
            f"{row.id} {'f' if row.for_fitting else 'j'}",
            _what(point),
            _number(point.published),
            _number(point.predicted),
            row.unit,
            f"{point.error:+.0%}",
            bar,
        )
    return table


def _what(point: PublishedPoint) -> str:
    row = point.row
    if point.kind is Kind.KEPT:
        return f"exchange: {row.metric[row.metric.index('kept') :]}"
    return f"{row.phase} EP {row.ep}, {point.batch_text}{_short(point)}"


def _short(point: PublishedPoint) -> str:
    name = point.row.metric.removeprefix("per-layer ")
    part = f", {name}" if point.kind is Kind.PART else ""
    schedule = ScheduleKind.SEQUENTIAL if point.setup is None else point.setup.deployment.options.schedule
    return f"{part}{'' if schedule == ScheduleKind.SEQUENTIAL else f', {schedule}'}"


def _groups(groups: list[PointGroup]) -> Table:
    table = _table("group", "fit/judged", "median", "p90", "bias", "held", "bar")
    for group in groups:
        table.add_row(
            group.name,
            f"{group.fitted}/{group.judged}",
            f"{group.median:.1%}",
            f"{group.p90:.0%}",
            f"{group.bias:+.0%}",
            "" if group.held is None else f"{group.held:.0%}",
            "" if group.bar is None else f"{group.bar:.0%}",
        )
    return table


def _trends(trends: list[Trend]) -> Table:
    table = _table("trend", "published", "predicted", "ratio off", "")
    for trend in trends:
        table.add_row(
            f"{trend.what} ({trend.ids[0]}, {trend.ids[1]})",
            f"{trend.published:+.0%}",
            f"{trend.predicted:+.0%}",
            f"{trend.error:+.0%}",
            "" if trend.right else "wrong way",
        )
    return table


def _decisions(decisions: list[Choosing]) -> Table:
    table = _table("decision", "of", "regret", "Kendall")
    for decision in decisions:
        table.add_row(
            decision.what,
            str(len(decision.ids)),
            f"{decision.regret:.1%}",
            "" if decision.kendall is None else f"{decision.kendall:+.2f}",
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(
            name, justify="left" if name in ("what", "unit") else "right", no_wrap=name != "what"
        )
    return table
