"""A page of what does not fit into memory looks like it: what overflows, by how much and the mend come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wingspan.report.page import Banner, Page, Section, Table
from wingspan.report.units import bytes_text, count_text
from wingspan.schedule.result import StepReport

_HOLDS = ("Memory",)
"""Sections whose figures hold although nothing can run."""


@dataclass(frozen=True)
class Mend:
    """A change after which it fits.

    Args:
        text: what to change.
        changes: what another than was asked for, in words.
        peak_bytes: of the fullest rank.
        tokens_per_second_per_gpu: predicted.
    """

    text: str
    changes: str
    peak_bytes: float
    tokens_per_second_per_gpu: float


def unfit(page: Page, report: StepReport, capacity_bytes: float, part: str, mends: Sequence[Mend]) -> Page:
    """A step's page with its banner and its ways out in front, and all that cannot come about marked.

    Args:
        page: of the step.
        report: of which the page is.
        capacity_bytes: memory of one GPU.
        part: what overflows it.
        mends: the cheapest first; may be none.
    """
    peak = max(report.peak_memory_bytes)
    mend = (
        f"The mend that costs least: {mends[0].text}; then {bytes_text(mends[0].peak_bytes)}."
        if mends
        else "No change of one or two settings makes it fit."
    )
    return replace(
        page,
        banner=Banner(
            f"Does not fit: {bytes_text(peak - capacity_bytes)} too much for the fullest GPU",
            [
                f"It needs {bytes_text(peak)} and has {bytes_text(capacity_bytes)}; memory overflows with: {part}.",
                mend,
                "What is marked says how a step would go, were there room.",
            ],
        ),
        tiles=[replace(tile, supposed=tile.name != "Peak memory") for tile in page.tiles],
        sections=[
            *([_ways(report, mends)] if mends else []),
            *(replace(section, supposed=section.title not in _HOLDS) for section in page.sections),
        ],
    )


def _ways(report: StepReport, mends: Sequence[Mend]) -> Section:
    asked = Mend(
        "as asked, were there room",
        "",
        max(report.peak_memory_bytes),
        report.tokens_per_second / report.ranks,
    )
    return Section(
        "Ways out",
        "The cheapest changes, each predicted; those that only change how it runs come first, those that need other "
        "hardware last.",
        table=Table(
            ("change", "changes", "memory", "tokens/s per GPU"),
            [
                [way.text, way.changes, bytes_text(way.peak_bytes), count_text(way.tokens_per_second_per_gpu)]
                for way in (asked, *mends)
            ],
        ),
    )
