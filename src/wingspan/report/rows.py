"""Results as plain rows for CSV: one row per rank, point or load, numbers in full, units in the headings."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wingspan.schedule.result import StepReport
    from wingspan.schedule.serving_result import LoadPoint, ServingReport
    from wingspan.schedule.sweep_result import SweepResult

Row = Mapping[str, object]


def step_rows(report: StepReport) -> list[Row]:
    """One row per rank: seconds per operation and of transfers their hidden part, bytes, memory by part."""
    rows: list[Row] = []
    for rank in range(report.ranks):
        row: dict[str, object] = {"rank": rank, "node": rank // report.ranks_per_node}
        for operation, seconds in report.operation_seconds.items():
            row[f"{operation.value}_seconds"] = seconds[rank]
        for operation, seconds in report.hidden_seconds.items():
            row[f"{operation.value}_hidden_seconds"] = seconds[rank]
        row["exposed_communication_seconds"] = report.exposed_communication_seconds[rank]
        row["sent_within_node_bytes"] = report.sent_within_node_bytes[rank]
        row["sent_across_nodes_bytes"] = report.sent_across_nodes_bytes[rank]
        row["received_within_node_bytes"] = report.received_within_node_bytes[rank]
        row["received_across_nodes_bytes"] = report.received_across_nodes_bytes[rank]
        for part, sizes in report.memory_bytes.items():
            row[f"{part.replace(' ', '_')}_bytes"] = sizes[rank]
        row["peak_memory_bytes"] = report.peak_memory_bytes[rank]
        rows.append(row)
    return rows


def sweep_rows(result: SweepResult) -> list[Row]:
    """One row per point: its axes' values, then its figures."""
    return [{**point.at, **point.model_dump(exclude={"at"})} for point in result.points]


def serving_rows(report: ServingReport) -> list[Row]:
    """One row per load; percentiles and groups as columns of their own."""
    return [_flat(point) for point in report.points]


def _flat(point: LoadPoint) -> Row:
    row: dict[str, object] = {}
    for name, value in point.model_dump().items():
        if isinstance(value, dict):
            row |= {f"{name}.{key}": number for key, number in value.items()}
        else:
            row[name] = value
    return row


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV, headed by the names of the first."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
