"""What a person sees of `wingspan validate`: the error table, and published figures beside predicted ones."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table

from wingspan.cli.console import Console
from wingspan.interop.silicon.headlines import Headline
from wingspan.interop.silicon.judge import Verdict

_MICRO = 1e-6
_WIDE = 100
"""Columns from which the range of measured times is shown too (`--json` always has it)."""


def show(where: str, verdicts: list[Verdict], printed: list[Headline], *, every_headline: bool) -> None:
    """Print everything; single figures only where `every_headline` is asked for."""
    console = Console(highlight=False)
    if verdicts:
        console.print(_verdict_table(verdicts, wide=console.width >= _WIDE))
        fitted = any(verdict.fitted_rows for verdict in verdicts)
        split = (
            "on the judged rows only (a row was fitted on if the CRC-32 of its line is even)"
            if fitted
            else "and no constant was fitted on any of these rows"
        )
        console.print(
            f"Measurements: {where}. Errors are relative to the measured time, {split}. "
            "Bias above 0: predicted too slow.",
            style="dim",
        )
        for reason in dict.fromkeys(v.suspect for v in verdicts if v.suspect):
            console.print(f"* not fitted, no target: {reason}", style="dim")
    if printed:
        errors = np.abs([headline.error for headline in printed])
        console.print(
            f"\n{len(printed)} figures that kernels' authors print, none fitted on: "
            f"median error {np.median(errors):.0%}, 9 of 10 below {np.percentile(errors, 90):.0%}"
            + ("" if every_headline else " (--headlines lists them)")
        )
        if every_headline:
            console.print(_headline_table(printed))
            console.print(
                "Logical bandwidth counts all copies, those that stay on the sender's node too; the network card "
                "carries the last column. Time: error of the predicted time, above 0 too slow.",
                style="dim",
            )


def _verdict_table(verdicts: list[Verdict], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("operation", overflow="fold")
    for name in ("fit/judged", "median", "p90", "bias", "target", *(("measured times",) if wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in verdicts:
        style = "none" if verdict.holds is None else "green" if verdict.holds else "bold red"
        cells = [
            verdict.group + (" *" if verdict.suspect else ""),
            f"{verdict.fitted_rows}/{verdict.judged_rows}",
            f"[{style}]{verdict.median:.1%}[/]",
            f"{verdict.p90:.0%}",
            f"{verdict.bias:+.0%}",
            "" if verdict.target is None else f"<{verdict.target:.0%}",
        ]
        if wide:
            cells.append(_range(verdict.fastest_seconds, verdict.slowest_seconds))
        table.add_row(*cells)
    return table


def _headline_table(printed: list[Headline]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    for name in ("published", "predicted", "unit", "time", "card"):
        table.add_column(name, justify="right", no_wrap=True)
    for headline in printed:
        table.add_row(
            headline.what,
            f"{headline.published:.0f}",
            f"{headline.predicted:.0f}",
            headline.unit,
            f"{headline.error:+.0%}",
            "" if headline.card is None else f"{headline.card:.0f} GB/s",
        )
    return table


def _range(low_seconds: float, high_seconds: float) -> str:
    return f"{_short(low_seconds)}-{_short(high_seconds)}"


def _short(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g}{unit}"
    return f"{seconds / _MICRO:.3g}us"
