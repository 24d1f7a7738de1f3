"""What `wingspan sweep` does: the predictions, and what is shown of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from wingspan.cli.console import Console
from wingspan.cli.progress import progress
from wingspan.cli.values import integers
from wingspan.report.terminal import SWEEP_HEAD, sentences, sweep_table
from wingspan.schedule.sweep_result import SweepResult
from wingspan.simulate.sweep import Axis, Setting, sweep
from wingspan.simulate.sweep_start import settle

_MOST_ROWS = 60
"""Longer tables are not printed: the CSV and the page have all."""


def predict(
    start: Setting, axes: Sequence[Axis], longest_step_ms: float | None, price: float | None
) -> SweepResult:
    """All points, with a bar of progress on a terminal; with a price of a GPU hour, what their tokens cost."""
    base, varied, conditions = settle(start, axes)
    count = math.prod(len(axis.choices) for axis in varied)
    with progress("predicting", count) as advance:
        longest = None if longest_step_ms is None else longest_step_ms / 1e3
        result = sweep(base, varied, conditions, advance, longest)
    return result if price is None else result.priced(price)


def counts(text: str | None, option: str, most: int) -> list[int] | None:
    """The values of an axis that counts something; None where it was left out."""
    return None if text is None else integers(text, option, most)


def show(result: SweepResult, html: Path | None) -> None:
    """Conditions, table and sentences on the terminal."""
    console = Console(highlight=False)
    for name, value in result.conditions.items():
        console.print(f"[dim]{name}:[/dim] {value}")
    if len(result.points) <= _MOST_ROWS:
        console.print(f"[dim]{SWEEP_HEAD}[/dim]\n")
        console.print(sweep_table(result, console.width))
        console.print()
    else:
        console.print(f"\n{len(result.points)} points; --csv or --json for all, --html for pictures\n")
    for line in (*sentences(result.findings), *sentences(result.notes)):
        console.print(line)
    if html:
        console.print(f"page: {html} (open in a browser)")
