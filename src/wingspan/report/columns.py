"""Columns of figures in a terminal: one unit and one number of decimals for all of a column.

So digits of equal weight stand below each other, and none is cut to make room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

_Units = tuple[tuple[float, float, str], ...]

# From which largest figure on, what one unit is, and its name.
_TIMES: _Units = ((10.0, 1.0, "s"), (0.0, 1e-3, "ms"))
_SIZES: _Units = ((1e12, 1e12, "TB"), (1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (1e3, 1e3, "kB"), (0.0, 1.0, "B"))
_COUNTS: _Units = ((1e9, 1e6, "M "), (1e6, 1e3, "k "), (0.0, 1.0, ""))


@dataclass(frozen=True)
class Column:
    """A heading, of up to two lines, and a text for each row.

    Args:
        name: the heading.
        texts: from the first row to the last.
        words: left-aligned, and may wrap: digits never do.
        spared: how soon it is left out where the terminal has no room: the highest first, 0 never.
    """

    name: str
    texts: Sequence[str]
    words: bool = False
    spared: int = 0

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(len(line) for text in (self.name, *self.texts) for line in text.split("\n"))


def aligned(values: Sequence[float], *, widest: int = 6) -> list[str]:
    """Figures with as many decimals each: three digits of the least, fewer where the largest gets wider than this.

    `0.208` and `11.5` are `0.208` and `11.500`; `48.1` and `266.03` are `48.1` and `266.0`. What is not finite, as a
    rate over no time, is a dash.
    """
    finite = [value for value in values if math.isfinite(value)]
    least = min((abs(value) for value in finite if value), default=1.0)
    decimals = min(3, max(0, 2 - math.floor(math.log10(least))))
    while decimals and max((len(f"{value:,.{decimals}f}") for value in finite), default=0) > widest:
        decimals -= 1
    return [f"{value:,.{decimals}f}" if math.isfinite(value) else "-" for value in values]


def seconds_column(seconds: Sequence[float], *, widest: int = 6) -> tuple[str, list[str]]:
    """The unit of a column of times, milliseconds up to ten seconds, and its figures."""
    return _in_one_unit(seconds, _TIMES, widest)


def bytes_column(sizes_bytes: Sequence[float], *, widest: int = 6) -> tuple[str, list[str]]:
    """The unit of a column of bytes, that of the largest, and its figures; 1 GB = 1e9 bytes."""
    return _in_one_unit(sizes_bytes, _SIZES, widest)


def counts_column(numbers: Sequence[float], *, widest: int = 6) -> tuple[str, list[str]]:
    """The unit of a column of counts, with a space behind it, and its figures: up to six digits there is none."""
    return _in_one_unit(numbers, _COUNTS, widest)


def price_columns(name: str, prices: Sequence[float | None]) -> list[Column]:
    """A column, with a dash where a row has no price; none where no row has one."""
    known = iter(aligned([price for price in prices if price is not None]))
    texts = ["-" if price is None else next(known) for price in prices]
    return [Column(name, texts)] if {*texts} - {"-"} else []


def table(columns: Sequence[Column], styles: Sequence[str | None], width: int) -> Table:
    """As many of the columns as `width` has room for, with two spaces between them where that is possible."""
    kept = [*columns]
    while _needed(kept, 1) > width and (last := max(kept, key=lambda column: column.spared)).spared:
        kept.remove(last)
    gap = 2 if _needed(kept, 2) <= width else 1
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False, pad_edge=False)
    for column in kept:
        shown.add_column(
            column.name,
            justify="left" if column.words else "right",
            no_wrap=not column.words,
            overflow="fold",
        )
    for texts, style in zip(zip(*(column.texts for column in kept), strict=True), styles, strict=True):
        shown.add_row(*texts, style=style)
    return shown


def _in_one_unit(values: Sequence[float], units: _Units, widest: int) -> tuple[str, list[str]]:
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    size, name = next((size, name) for begins, size, name in units if largest >= begins)
    return name, aligned([value / size for value in values], widest=widest)


def _needed(columns: Sequence[Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)
