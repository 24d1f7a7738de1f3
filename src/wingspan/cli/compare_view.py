"""What a person sees of a comparison: the predicted and the measured step side by side."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.simulate_view import describe
from wingspan.cli.step_html import conditions
from wingspan.deployment import Deployment
from wingspan.report.compare_page import compare_page
from wingspan.report.page import write_page
from wingspan.report.step_accounts import SUMS, Entry, comparison
from wingspan.report.units import bytes_text, count_text, seconds_text
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.specs.memory import MemoryPart
from wingspan.writing import json_text


def show(
    deployment: Deployment,
    predicted: StepReport,
    measured: StepReport,
    trace: Path | None,
    html: Path | None,
) -> None:
    """Every figure of both, side by side."""
    console = Console(highlight=False)
    console.print(describe(deployment))
    console.print(_how(measured))
    for title, entries in comparison(predicted, measured).items():
        console.print()
        console.print(_table(title, entries))
    for note in (*_in_part(predicted, measured), *measured.notes):
        console.print(f"[dim]- {note}[/dim]")
    console.print(f"slowest: predicted {predicted.slowest_reason}; measured {measured.slowest_reason}")
    if trace is not None:
        console.print(
            f"traces: {trace}-predicted.json and {trace}-measured.json (open both in ui.perfetto.dev, side by side)"
        )
    if html is not None:
        console.print(f"page: {html} (open in a browser)")


def write_html(
    deployment: Deployment,
    reports: tuple[StepReport, StepReport],
    timelines: tuple[RunTimeline, RunTimeline],
    path: Path,
) -> None:
    """Both as one page; of reports and timelines the predicted one first."""
    remarks = [_how(reports[1]), *_in_part(*reports)]
    write_page(compare_page(*reports, *timelines, conditions(deployment), remarks), path)


def _how(measured: StepReport) -> str:
    """What of a measured step is real."""
    if measured.source == "paced":
        return (
            "compute is paced (every rank sleeps for its predicted time), transfers are real; "
            f"mean of {measured.steps} steps"
        )
    return (
        f"compute and transfers are real; mean of {measured.steps} steps; predicted bytes and load are counted from "
        "the experts that the run's own tokens chose"
    )


def print_json(predicted: StepReport, measured: StepReport) -> None:
    """Both reports, and every figure of the tables with its ratio."""
    compared = {
        title: {
            entry.name: {"predicted": entry.predicted, "measured": entry.measured, "ratio": entry.ratio}
            for entry in entries
        }
        for title, entries in comparison(predicted, measured).items()
    }
    print(
        json_text(
            {
                "predicted": predicted.model_dump(mode="json"),
                "measured": measured.model_dump(mode="json"),
                "compared": compared,
            }
        )
    )


def _table(title: str, entries: list[Entry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(title, min_width=40)
    for column in ("predicted", "measured", "ratio"):
        table.add_column(column, justify="right", min_width=10)
    for entry in entries:
        if entry.name in SUMS:
            table.add_section()
        ratio = "-" if entry.ratio is None else f"{entry.ratio:.2f}"
        table.add_row(
            entry.name, _text(entry.predicted, entry.unit), _text(entry.measured, entry.unit), ratio
        )
        if entry.name in SUMS:
            table.add_section()
    return table


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return {"s": seconds_text, "bytes": bytes_text}.get(unit, count_text)(value)


def _in_part(predicted: StepReport, measured: StepReport) -> list[str]:
    """The line about memory that only the prediction has, but for what a measurement has in `other`."""
    missing = [
        part.value
        for part, sizes in predicted.memory_bytes.items()
        if any(sizes) and part is not MemoryPart.ACTIVATIONS and part not in measured.memory_bytes
    ]
    if not missing:
        return []
    return [f"memory compares in part: the {measured.source} ranks hold none of {', '.join(missing)}"]
