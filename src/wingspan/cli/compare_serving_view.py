"""What a person sees of a server beside its simulation."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.report.page import write_page
from wingspan.report.serving_compare_page import error_text, serving_compare_page
from wingspan.report.units import count_text, seconds_text
from wingspan.schedule.serving_comparison import ComparedLoad, ServingComparison
from wingspan.writing import json_text


def finish(found: ServingComparison, *, as_json: bool, html: Path | None) -> None:
    """Tables or JSON, and the page."""
    if html is not None:
        write_page(serving_compare_page(found), html)
    if as_json:
        print(json_text(found.model_dump(mode="json") | {"compared": _compared(found)}))
        return
    console = Console(highlight=False)
    for name, value in found.conditions.items():
        console.print(f"[dim]{name}:[/dim] {value}")
    console.print(
        f"with every place taken the server answers {found.highest_requests_per_second:.2f} requests/s; "
        f"{found.measured_steps:,} steps measured; {seconds_text(found.http_seconds)} from the client to the engine "
        f"and back; other work took {found.others_share:.0%} of this machine's processors meanwhile"
    )
    for load in found.loads:
        console.print()
        console.print(_table(load))
        console.print(
            f"[dim]with each step's own time instead, the largest error is {load.replayed_error:.1%}; other work took "
            f"{load.others_share:.0%} of the processors[/dim]"
        )
    if html is not None:
        console.print(f"page: {html} (open in a browser)")


def _figure_text(value: float, unit: str) -> str:
    return seconds_text(value) if unit == "s" else count_text(value)


def _table(load: ComparedLoad) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(f"{load.requests_per_second:.2f} requests/s ({load.share:.0%})", min_width=34)
    for column in ("predicted", "measured", "error"):
        table.add_column(column, justify="right", min_width=10)
    for figure in load.figures:
        values = (_figure_text(value, figure.unit) for value in (figure.predicted, figure.measured))
        table.add_row(figure.name, *values, error_text(figure))
    return table


def _compared(found: ServingComparison) -> list[dict[str, object]]:
    """The tables, for a program."""
    return [
        {
            "requests_per_second": load.requests_per_second,
            "figures": {
                figure.name: {
                    "predicted": figure.predicted,
                    "measured": figure.measured,
                    "error": figure.error,
                }
                for figure in load.figures
            },
        }
        for load in found.loads
    ]
