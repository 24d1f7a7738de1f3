"""Tables of a step add up: what is spent to the step, parts of memory to the peak, bytes to what was sent."""

from __future__ import annotations

import csv
import io

import pytest

from tests.report.examples import step
from wingspan.report.rows import csv_text, step_rows
from wingspan.report.step_accounts import comparison, hidden_account, time_account
from wingspan.report.step_figures import operation_rows
from wingspan.schedule.result import Operation, StepReport


def hiding() -> StepReport:
    """Half of every dispatch is beside compute: what was waiting begins that much earlier."""
    report, _ = step()
    half = [seconds / 2 for seconds in report.operation_seconds[Operation.DISPATCH]]
    longer = [a + b for a, b in zip(report.operation_seconds[Operation.WAIT], half, strict=True)]
    return report.model_copy(
        update={
            "hidden_seconds": {Operation.DISPATCH: half},
            "operation_seconds": {**report.operation_seconds, Operation.WAIT: longer},
        }
    )


@pytest.mark.parametrize("report", [step()[0], hiding()], ids=["nothing hidden", "half hidden"])
def test_times_of_the_mean_rank_add_up_to_the_step(report: StepReport) -> None:
    assert sum(time_account(report).values()) == pytest.approx(report.step_seconds)
    shares = [float(row[2].removesuffix(" %")) for row in operation_rows(report)]
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=0.5)


def test_what_is_hidden_stands_beside_the_sum() -> None:
    assert hidden_account(step()[0]) == {}
    report = hiding()
    half = sum(report.hidden_seconds[Operation.DISPATCH]) / report.ranks
    assert hidden_account(report) == {"dispatch, hidden behind compute": pytest.approx(half)}
    assert time_account(report)["dispatch (transfer)"] == pytest.approx(half)


def test_both_reports_stand_side_by_side() -> None:
    one, _ = step()
    two = hiding().model_copy(update={"source": "measured", "step_seconds": one.step_seconds * 2})
    tables = {title: {e.name: e for e in entries} for title, entries in comparison(one, two).items()}
    times, sent, memory, load = tables.values()
    assert times["step"].ratio == pytest.approx(0.5)
    assert times["dispatch, hidden behind compute"].predicted is None
    assert times["dispatch, hidden behind compute"].ratio is None
    assert sent["within nodes"].predicted == sum(one.sent_within_node_bytes)
    *parts, whole = memory.values()
    assert sum(part.predicted or 0 for part in parts) == pytest.approx(whole.predicted)
    assert load["fullest expert / mean"].measured == two.imbalance


def test_rows_hold_every_rank_and_add_up() -> None:
    report = hiding()
    rows = list(csv.DictReader(io.StringIO(csv_text(step_rows(report)))))
    assert [int(row["rank"]) for row in rows] == list(range(report.ranks))
    for row in rows:
        busy = sum(float(row[f"{operation.value}_seconds"]) for operation in report.operation_seconds)
        assert busy - float(row["dispatch_hidden_seconds"]) == pytest.approx(report.step_seconds)
