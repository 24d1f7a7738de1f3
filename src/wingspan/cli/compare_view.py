"""What a person sees of a comparison: the predicted and the measured step side by side."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.cli.simulate_view import describe
from wingspan.deployment import Deployment
from wingspan.report.units import bytes_text, seconds_text
from wingspan.schedule.result import Operation, StepReport
from wingspan.writing import json_text

Row = tuple[str, float, float]


def rows(predicted: StepReport, measured: StepReport) -> list[Row]:
    """(what, predicted, measured) in seconds: the step, what is exposed of its transfers, each operation's mean."""
    found: list[Row] = [
        ("step", predicted.step_seconds, measured.step_seconds),
        (
            "exposed communication",
            _mean(predicted.exposed_communication_seconds),
            _mean(measured.exposed_communication_seconds),
        ),
    ]
    for operation in Operation:
        one, two = (r.operation_seconds.get(operation) for r in (predicted, measured))
        if one is not None and two is not None and operation is not Operation.WAIT:
            found.append((operation.value.replace("_", " "), _mean(one), _mean(two)))
    return found


def show(deployment: Deployment, predicted: StepReport, measured: StepReport, trace: Path | None) -> None:
    """The table, and what travelled."""
    console = Console(highlight=False)
    console.print(describe(deployment))
    console.print(
        "compute is paced (every rank sleeps for its predicted time), transfers are real; "
        f"mean of {measured.steps} steps"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("mean rank", min_width=22)
    for column in ("predicted", "measured", "error"):
        table.add_column(column, justify="right", min_width=10)
    for name, one, two in rows(predicted, measured):
        table.add_row(name, seconds_text(one), seconds_text(two), _error(one, two))
        if name == "exposed communication":
            table.add_section()
    console.print(table)
    for name, of in (("across nodes", "sent_across_nodes_bytes"), ("within nodes", "sent_within_node_bytes")):
        one, two = sum(getattr(predicted, of)), sum(getattr(measured, of))
        if one or two:
            console.print(
                f"sent {name}: predicted {bytes_text(one)}, measured {bytes_text(two)} ({_error(one, two)})"
            )
    console.print(f"slowest: predicted {predicted.slowest_reason}; measured {measured.slowest_reason}")
    if trace is not None:
        console.print(
            f"traces: {trace}-predicted.json and {trace}-measured.json (open both in ui.perfetto.dev, side by side)"
        )


def print_json(predicted: StepReport, measured: StepReport) -> None:
    """Both reports, and the relative errors of the prediction."""
    errors = {name: one / two - 1 if two else None for name, one, two in rows(predicted, measured)}
    print(
        json_text(
            {
                "predicted": predicted.model_dump(mode="json"),
                "measured": measured.model_dump(mode="json"),
                "errors": errors,
            }
        )
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _error(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.1%}" if measured else "-"
