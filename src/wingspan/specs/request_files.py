"""Requests of a file: its columns recognised, its times and lengths as numbers, and what was assumed in words.

Shapes: N requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_REQUESTS
from wingspan.specs.request_formats import WANTED, RequestFormat, recognised
from wingspan.specs.request_tables import RequestTable, read_table
from wingspan.specs.requests import PrefixBlocks, Requests

_UNIX_UNITS = ((1e17, 1e-9, "ns"), (1e14, 1e-6, "µs"), (1e11, 1e-3, "ms"), (1e8, 1.0, "s"))
"""Unix times of our days, told by their size: seconds are above 1e8 from 1973 on."""


@dataclass(frozen=True)
class RecordedRequests:
    """What a file holds.

    Args:
        requests: in order of arrival, the first at 0; all at 0 where the file has lengths alone.
        format: what it was recognised as.
        timed: whether the file says when requests arrive.
        remarks: what was assumed and left out, a sentence each.
    """

    requests: Requests
    format: str
    timed: bool
    remarks: tuple[str, ...]


def read_requests(path: Path, first: int | None = None) -> RecordedRequests:
    """Read a trace: Azure, Mooncake, BurstGPT, ShareGPT, or a table with obvious columns.

    Rows may stand in any order. Those with no prompt or no output (failed requests) are dropped and counted.

    Args:
        path: .csv with a header, .json, .jsonl or .parquet.
        first: only so many, by arrival; None: all.

    Raises:
        InputError: the file is missing or broken, columns are not recognised, or a row holds no number where one
            must be; names the line.
    """
    table = read_table(path)
    if not table.places:
        dropped = f": {table.remarks[-1]}" if table.remarks else ""
        raise InputError(f"{path}: holds no request{dropped}")
    found = recognised(table.columns)
    if found is None:
        names = ", ".join(table.columns)[:200]
        raise InputError(f"{path}: columns not recognised ({names}); {WANTED}")
    prompt_N, output_N = (_lengths(path, table, column) for column in (found.prompt, found.output))
    remarks = list(table.remarks)
    arrival_N = np.zeros(len(prompt_N))
    if found.arrival is not None:
        arrival_N, unit = _arrivals(path, table, found)
        remarks.append(unit)
    kept_N = (prompt_N > 0) & (output_N > 0)
    if not kept_N.any():
        raise InputError(f"{path}: no request has both prompt and output tokens")
    if not kept_N.all():
        remarks.append(
            f"{int((~kept_N).sum()):,} of {len(kept_N):,} rows dropped: no prompt or no output tokens"
        )
    order_N = np.flatnonzero(kept_N)[np.argsort(arrival_N[kept_N], kind="stable")]
    if first is not None and first < len(order_N):
        remarks.append(f"the first {first:,} of {len(order_N):,} requests taken")
        order_N = order_N[:first]
    if len(order_N) > MOST_REQUESTS:
        raise InputError(
            f"{path}: {len(order_N):,} requests are more than {MOST_REQUESTS:,}; take a part of them (`num_requests`)"
        )
    requests = Requests(
        arrival_N[order_N] - arrival_N[order_N[0]],
        prompt_N[order_N],
        output_N[order_N],
        _blocks(path, table, found, order_N),
    )
    return RecordedRequests(requests, found.name, found.arrival is not None, tuple(remarks))


def _lengths(path: Path, table: RequestTable, column: str) -> NDArray[np.int64]:
    values = _numbers(path, table, column)
    wrong = np.flatnonzero((values < 0) | (values > MOST_CONTEXT) | (values != np.floor(values)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}{table.places[row]}: {column} = {values[row]:g}; use a whole number from 0 to {MOST_CONTEXT:,}"
        )
    return values.astype(np.int64)


def _numbers(path: Path, table: RequestTable, column: str) -> NDArray[np.float64]:
    numbers = np.empty(len(table.places))
    for row, value in enumerate(table.columns[column]):
        number = _number(value)
        if number is None or not math.isfinite(number):
            shown = "nothing" if value in (None, "") else repr(value)[:60]
            raise InputError(f"{path}{table.places[row]}: {column} is {shown}; it must be a finite number")
        numbers[row] = number
    return numbers


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _arrivals(path: Path, table: RequestTable, found: RequestFormat) -> tuple[NDArray[np.float64], str]:
    """Seconds of arrival from the first on: (N,); and how they were read."""
    column = found.arrival or ""
    values = table.columns[column]
    if found.unit_seconds is None and _number(values[0]) is None:
        dates_N = np.array(
            [_date_seconds(path, table.places[row], column, v) for row, v in enumerate(values)]
        )
        first = int(dates_N.argmin())
        return dates_N - dates_N[first], f"{column} read as dates; the first, {values[first]}, is time 0"
    numbers_N = _numbers(path, table, column)
    least = float(numbers_N.min())
    if least < 0:
        row = int(numbers_N.argmin())
        raise InputError(f"{path}{table.places[row]}: {column} = {least:g}; it must be at least 0")
    seconds, unit = _unit(found.unit_seconds, least)
    return (numbers_N - least) * seconds, f"{column} read as {unit}; the first, {least:.15g}, is time 0"


_UNIT_NAMES = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"}


def _unit(seconds: float | None, least: float) -> tuple[float, str]:
    """What 1 is in seconds, and its name; where the file does not say, as the least value tells."""
    if seconds is not None:
        return seconds, _UNIT_NAMES[seconds]
    for above, unix, name in _UNIX_UNITS:
        if least > above:
            return unix, f"Unix time in {name}"
    return 1.0, "seconds, which the file does not say"


def _date_seconds(path: Path, place: str, column: str, value: Any) -> float:
    """Seconds of a date since 1970; one without a zone is taken as UTC, as only differences count."""
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise InputError(
            f"{path}{place}: {column} is {str(value)[:60]!r}; it must be a number or a date"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _blocks(
    path: Path, table: RequestTable, found: RequestFormat, order_N: NDArray[np.int64]
) -> PrefixBlocks | None:
    if found.blocks is None:
        return None
    rows = table.columns[found.blocks]
    chosen: list[tuple[int, ...]] = []
    for row in order_N.tolist():
        ids = rows[row]
        if not isinstance(ids, Sequence) or not all(type(number) is int for number in ids):
            raise InputError(f"{path}{table.places[row]}: {found.blocks} must be a list of whole numbers")
        chosen.append(tuple(ids))
    return PrefixBlocks(tuple(chosen), found.block_tokens)
