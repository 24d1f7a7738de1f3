"""What a person sees of a comparison: the predicted and the measured step side by side."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.simulate_view import describe
from wingspan.deployment import Deployment
from wingspan.report.step_accounts import Entry, comparison
from wingspan.report.units import bytes_text, count_text, seconds_text
from wingspan.schedule.result import StepReport
from wingspan.specs.memory import MemoryPart
from wingspan.writing import json_text

_SUMS = ("step", "all parts")


def show(deployment: Deployment, predicted: StepReport, measured: StepReport, trace: Path | None) -> None:
    """Every figure of both, side by side."""
    console = Console(highlight=False)
    console.print(describe(deployment))
    console.print(
        "compute is paced (every rank sleeps for its predicted time), transfers are real; "
        f"mean of {measured.steps} steps"
        if measured.source == "paced"
        else f"compute and transfers are real; mean of {measured.steps} steps; predicted bytes and load are counted "
        "from the experts that the run's own tokens chose"
    )
    for title, entries in comparison(predicted, measured).items():
        console.print()
        console.print(_table(title, entries))
    missing = _not_measured(predicted, measured)
    if missing:
        console.print(
            f"[dim]- memory compares in part: the {measured.source} ranks hold none of {', '.join(missing)}[/dim]"
        )
    for note in measured.notes:
        console.print(f"[dim]- {note}[/dim]")
    console.print(f"slowest: predicted {predicted.slowest_reason}; measured {measured.slowest_reason}")
    if trace is not None:
        console.print(
            f"traces: {trace}-predicted.json and {trace}-measured.json (open both in ui.perfetto.dev, side by side)"
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
        if entry.name in _SUMS:
            table.add_section()
        ratio = "-" if entry.ratio is None else f"{entry.ratio:.2f}"
        table.add_row(
            entry.name, _text(entry.predicted, entry.unit), _text(entry.measured, entry.unit), ratio
        )
        if entry.name in _SUMS:
            table.add_section()
    return table


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return {"s": seconds_text, "bytes": bytes_text}.get(unit, count_text)(value)


def _not_measured(predicted: StepReport, measured: StepReport) -> list[str]:
    """Parts of memory that only the prediction has, but for those that a measurement has in `other`."""
    return [
        part.value
        for part, sizes in predicted.memory_bytes.items()
        if any(sizes) and part is not MemoryPart.ACTIVATIONS and part not in measured.memory_bytes
    ]
