"""A table of published figures: one a row, with what was run, on what, and which half may be fitted on.

The columns are `id`, `source`, `system`, `model`, `hardware`, `gpus`, `ep`, `phase`, `precision`, `batch_per_gpu`,
`seq`, `overlap`, `metric`, `value`, `unit` and `notes`, all as text that people typed from READMEs, posts and figures.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from wingspan.errors import InputError
from wingspan.interop.silicon.tables import read_table

_COLUMNS = (
    "id",
    "system",
    "model",
    "hardware",
    "ep",
    "phase",
    "precision",
    "batch_per_gpu",
    "seq",
    "overlap",
    "metric",
    "value",
    "unit",
    "notes",
)


@dataclass(frozen=True)
class PublishedRow:
    """One published figure, as its table has it.

    Args:
        ep: ranks over which experts lie; None where the row is of no one EP size.
        batch: tokens (prefill) or sequences (decode) per GPU, a fraction where some have none; None where the row
            does not say.
        value: the figure; None where it is not one number.
        for_fitting: constants may be fitted on it; the others judge.
    """

    id: str
    system: str
    model: str
    hardware: str
    ep: int | None
    phase: str
    precision: str
    batch: float | None
    seq: str
    overlap: str
    metric: str
    value: float | None
    unit: str
    notes: str
    for_fitting: bool

    @property
    def numbers_of_seq(self) -> list[int]:
        """The lengths that `seq` names: prompt and answer, or one context."""
        return [int(number) for number in re.findall(r"\d+", self.seq)]

    def says(self, *words: str) -> bool:
        """Whether system, precision, overlap, metric or notes have any of the words, as they are written."""
        text = " ".join((self.system, self.precision, self.overlap, self.metric, self.notes))
        return any(word in text for word in words)


def read_published(path: Path) -> list[PublishedRow]:
    """The rows of a CSV table, or of every such table in a folder, in its order.

    The split is by name: a row serves fitting where the CRC-32 of its `id` is even.

    Raises:
        InputError: no such file, a folder without such a table, or a table that lacks a column.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.csv")) if {"id", "overlap"} <= _header(file)]
        if not files:
            raise InputError(f"{path}: holds no CSV table with the columns {', '.join(_COLUMNS)}")
        return [row for file in files for row in read_published(file)]
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; name a table of published figures")
    table = read_table(path)
    cells = zip(*(table.text(name) for name in _COLUMNS), strict=True)
    return [_row(dict(zip(_COLUMNS, each, strict=True))) for each in cells]


def _header(path: Path) -> set[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return set(file.readline().strip().split(","))


def _row(cells: dict[str, str]) -> PublishedRow:
    texts = (
        "id",
        "system",
        "model",
        "hardware",
        "phase",
        "precision",
        "seq",
        "overlap",
        "metric",
        "unit",
        "notes",
    )
    return PublishedRow(
        **{name: cells[name] for name in texts},
        ep=_whole(cells["ep"]),
        batch=_positive(cells["batch_per_gpu"]),
        value=_number(cells["value"]),
        for_fitting=crc32(cells["id"].encode()) % 2 == 0,
    )


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _positive(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and 0 < number < math.inf else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
