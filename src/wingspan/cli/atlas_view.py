"""What a person sees of the atlas: published deployments with their loads, how well they are ranked, sources."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.markup import escape
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.deployment_presets import PublishedFigure
from wingspan.report.units import full_rate_text
from wingspan.simulate.published.atlas import AtlasRow, Ranked
from wingspan.simulate.published.judge import PointGroup, Trend

_WIDTHS = (17, 9, 9, 18, 6, 5, 6)
_HEADINGS = ("", "published", "predicted", "", "error", "bar", "chance")


def show_atlas(
    rows: Sequence[AtlasRow],
    groups: Sequence[PointGroup],
    orders: Sequence[Ranked],
    found: Sequence[Trend],
) -> None:
    """Print everything."""
    console = Console(highlight=False)
    console.print(_line(_HEADINGS), style="dim")
    for name, members in groupby(rows, key=lambda row: row.name.partition(":")[0]):
        several = list(members)
        console.print(f"[bold]{name}[/bold]  {escape(several[0].preset.title)}")
        console.print(_loads(several))
    console.print(
        "Error of the predicted time, above 0 too slow; * the bar does not hold the published figure; f constants were "
        "fitted on it; none: predicted alone. Chance: by how much a batch's uneven draw of experts lengthens the step.",
        style="dim",
    )
    if groups:
        console.print()
        console.print(_errors(groups))
        console.print(
            "Of the loads that nothing was fitted on; bias: the median error with its sign; held: by their bars.",
            style="dim",
        )
    if orders:
        console.print()
        console.print(_orders(orders))
    if found:
        console.print()
        console.print(_changes(found))
        console.print(
            "Tokens/s of the second against the first; off: of their ratio; ! goes the other way.",
            style="dim",
        )
    console.print()
    for preset in {row.preset.title: row.preset for row in rows}.values():
        console.print(f"[dim]{escape(preset.title)}: {escape(preset.source)}[/dim]")
        if preset.assumed:
            console.print(f"[dim]  assumed: {escape(' '.join(preset.assumed.split()))}[/dim]")


def unit_of(row: AtlasRow) -> str:
    """What the row's figure counts."""
    if row.load.figure not in (None, PublishedFigure.TOKENS):
        return str(row.load.figure)
    return (
        f"{PublishedFigure.TOKENS} of {row.load.gpus} GPUs"
        if row.load.gpus > 1
        else f"{PublishedFigure.TOKENS} a GPU"
    )


def _loads(rows: Sequence[AtlasRow]) -> Table:
    table = _grid()
    for row in rows:
        table.add_row(
            f"  :{row.load.load}",
            full_rate_text(row.load.value) if row.load.value is not None else "none",
            full_rate_text(row.tokens_per_second_per_gpu if row.predicted is None else row.predicted),
            unit_of(row),
            f"{row.error:+.0%}" if row.error is not None else "",
            _bar(row),
            f"{row.chance_seconds / row.report.step_seconds:.1%}",
        )
    return table


def _bar(row: AtlasRow) -> str:
    if row.report.relative_error is None or row.error is None:
        return ""
    return f"{row.report.relative_error:.0%}{' f' * row.load.fitted}{' *' * (not row.held)}"


def _line(cells: Sequence[str]) -> Table:
    table = _grid()
    table.add_row(*cells)
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for number, width in enumerate(_WIDTHS):
        table.add_column(justify="left" if number in (0, 3) else "right", min_width=width, no_wrap=True)
    return table


def _changes(found: Sequence[Trend]) -> Table:
    table = _figures("one thing changed", "published", "predicted", "off")
    for change in found:
        table.add_row(
            escape(change.what),
            f"{change.published:+.0%}",
            f"{change.predicted:+.0%}",
            f"{change.error:+.0%}{'' if change.right else ' !'}",
        )
    return table


def _errors(groups: Sequence[PointGroup]) -> Table:
    table = _figures("error of the predicted time", "rows", "bias", "median", "9 of 10 below", "held")
    for group in groups:
        table.add_row(
            group.name,
            str(group.judged),
            f"{group.bias:+.1%}",
            f"{group.median:.1%}",
            f"{group.p90:.0%}",
            "" if group.held is None else f"{group.held:.0%}",
        )
    return table


def _orders(orders: Sequence[Ranked]) -> Table:
    table = _figures("rank correlation", "rows", "Kendall", "median error")
    for order in orders:
        table.add_row(order.what, str(order.rows), f"{order.kendall:+.2f}", f"{order.median_error:.1%}")
    return table


def _figures(what: str, *headings: str) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for number in range(1 + len(headings)):
        table.add_column(justify="right" if number else "left")
    table.add_row(f"[bold]{what}[/bold]", *headings)
    return table
