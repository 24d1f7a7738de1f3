"""Read published measurements: CSV or Parquet tables, column by column."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasurementTable:
    """One file: its rows as text, and which of them constants may be fitted on."""

    name: str
    columns: dict[str, list[str]]
    for_fitting: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.for_fitting)

    def text(self, column: str) -> list[str]:
        """A column as it stands.

        Raises:
            InputError: the table has no such column.
        """
        if column not in self.columns:
            raise InputError(f"{self.name}: no column {column}; it has {', '.join(self.columns)}")
        return self.columns[column]

    def number(self, column: str) -> Array:
        """A column as numbers.

        Raises:
            InputError: the table has no such column, or a cell of it is no number.
        """
        values = self.text(column)
        try:
            return np.array([float(value) for value in values])
        except ValueError:
            line = next(i for i, value in enumerate(values) if not _is_number(value))
            raise InputError(
                f"{self.name}: line {line + 2}, {column} = {values[line]!r} is not a number"
            ) from None

    def rows(self, kept: NDArray[np.bool_]) -> MeasurementTable:
        """Only the rows where `kept` is true."""
        columns = {
            name: [value for value, keep in zip(values, kept, strict=True) if keep]
            for name, values in self.columns.items()
        }
        return MeasurementTable(self.name, columns, self.for_fitting[kept])


def read_table(path: Path) -> MeasurementTable:
    """A CSV file with a header line, or a Parquet file (.parquet).

    The split is by content: a row serves fitting where the CRC-32 of its line is even, so that it stays what it is
    when rows are added or sorted.

    Raises:
        InputError: the file cannot be read, or a line has another number of cells than the header.
    """
    if path.suffix == ".parquet":
        return _table(path, *_parquet(path))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name a folder with CSV tables") from None
    if not lines:
        raise InputError(f"{path}: empty; expected a header line and rows")
    header, *rows = list(csv.reader(lines))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{path}: line {number} has {len(row)} cells, the header {len(header)}")
    return _table(path, header, rows)


def _table(path: Path, header: list[str], rows: list[list[str]]) -> MeasurementTable:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    even = np.array([crc32(",".join(row).encode()) % 2 == 0 for row in rows], dtype=bool)
    return MeasurementTable(path.name, columns, even)


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    # Only here: importing pyarrow takes longer than everything else a CSV table needs.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    return list(columns), [[str(cell) for cell in row] for row in zip(*columns.values(), strict=True)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
