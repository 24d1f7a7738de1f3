"""The benchmark of calibration judges what it promises: loads that lie between others, figure by figure."""

from __future__ import annotations

import pytest
from benchmarks.calibration import KINDS, Found, rows, table


def measurement(load: str, **held_out: float) -> dict[str, object]:
    """A load whose figures are all 2, and predicted as given."""
    figures = {"tpot": "time per output token", "step": "step"}
    predicted = {figures[name]: 2 * value for name, value in held_out.items()}
    measured = dict.fromkeys(predicted, 2.0)
    return {
        "load": load, "measured": measured, "before": measured, "after": measured, "held_out": predicted
    }  # fmt: skip


def test_the_ends_are_not_promised() -> None:
    measurements = [
        measurement("16 at a time, 64 + 48", tpot=2.0),
        measurement("1 at a time, 64 + 48", tpot=0.5),
        measurement("2 at a time, 64 + 48", tpot=1.01),
        measurement("8 at a time, 64 + 48", tpot=0.96),
        measurement("4 at a time, 64 + 48", tpot=0.98),
    ]
    found = Found(list(rows(measurements)), {"step_seconds": 0.001, "prompts_apart": False}, [], 0.25)
    assert [row.load for row in found.rows if row.between] == [2, 8, 4]
    assert found.medians == {"TPOT": pytest.approx(0.02)}
    assert max(found.errors("TPOT", between=False)) == pytest.approx(1.0)
    printed = "\n".join(table(KINDS["served"], found))
    assert "0.25 of" in printed
    assert "TPOT: median 2.0%" in printed


def test_steps_of_traces_are_told_by_their_tokens() -> None:
    measurements = [measurement(f"decode, {n} tokens", step=1.0) for n in (1, 8, 32)]
    assert [(row.load, row.figure, row.between) for row in rows(measurements)] == [
        (1, "step", False), (8, "step", True), (32, "step", False)
    ]  # fmt: skip
