"""Requests that arrive at a server: from a trace file, or drawn from a Poisson process.

Shapes: N requests, in order of arrival.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_REQUESTS
from wingspan.reading import json_value

FIELDS = ("arrival_seconds", "prompt_tokens", "output_tokens")


@dataclass(frozen=True, eq=False)
class Requests:
    """When each request arrives, how long its prompt is and how many tokens it wants back.

    Raises:
        InputError: no request, unequal lengths, unordered or negative arrivals, or a length below 1.
    """

    arrival_seconds_N: NDArray[np.float64]
    prompt_tokens_N: NDArray[np.int64]
    output_tokens_N: NDArray[np.int64]

    def __post_init__(self) -> None:
        sizes = {len(self.arrival_seconds_N), len(self.prompt_tokens_N), len(self.output_tokens_N)}
        if len(sizes) != 1 or sizes == {0}:
            raise InputError(f"requests: need as many arrivals as prompts and outputs, got {sorted(sizes)}")
        arrivals = self.arrival_seconds_N
        if not np.isfinite(arrivals).all() or arrivals[0] < 0 or (np.diff(arrivals) < 0).any():
            raise InputError("requests: arrival_seconds must be finite, at least 0 and in order")
        for name, tokens in (("prompt", self.prompt_tokens_N), ("output", self.output_tokens_N)):
            if (short := int(tokens.min())) < 1:
                raise InputError(f"requests: {name}_tokens {short}; every request needs at least 1")

    def __len__(self) -> int:
        return len(self.arrival_seconds_N)

    @property
    def rate_per_second(self) -> float:
        """Mean arrivals a second between the first and the last; infinite if all come at once."""
        span = float(self.arrival_seconds_N[-1] - self.arrival_seconds_N[0])
        return (len(self) - 1) / span if span > 0 else math.inf

    def longer_than(self, tokens: int) -> NDArray[np.bool_]:
        """Whether each request, prompt and output, is longer than so many tokens: (N,)."""
        longer: NDArray[np.bool_] = self.prompt_tokens_N + self.output_tokens_N > tokens
        return longer

    def cut_to(self, tokens: int) -> Requests:
        """Cut every request to `tokens` (2 or more): first its output, then its prompt."""
        prompts_N = np.minimum(self.prompt_tokens_N, tokens - 1)
        return Requests(
            self.arrival_seconds_N, prompts_N, np.minimum(self.output_tokens_N, tokens - prompts_N)
        )

    def at_rate(self, rate_per_second: float) -> Requests:
        """Let the same requests arrive faster or slower, in the same rhythm.

        Raises:
            InputError: the requests arrive at one instant, so that there is no rhythm to stretch.
        """
        if math.isinf(self.rate_per_second):
            raise InputError("requests: all arrive at one instant; their load cannot be raised or lowered")
        first = self.arrival_seconds_N[0]
        stretched = (self.arrival_seconds_N - first) * (self.rate_per_second / rate_per_second)
        return Requests(stretched, self.prompt_tokens_N, self.output_tokens_N)


def poisson_requests(
    rate_per_second: float,
    count: int,
    prompt_tokens: int,
    output_tokens: int,
    *,
    spread: float = 0.0,
    seed: int = 0,
) -> Requests:
    """`count` requests with independent gaps, exponential with mean 1 / rate.

    The same seed gives the same requests at every rate, only closer together or wider apart, and a larger count
    the same ones and more.

    Args:
        spread: standard deviation over mean of both lengths, log-normal and at least 1 token; 0 makes all equal.

    Raises:
        InputError: a rate, count, length or spread that makes no sense.
    """
    if not (rate_per_second > 0 and math.isfinite(rate_per_second)):
        raise InputError(f"rate {rate_per_second} requests a second; give a number above 0")
    if count < 1 or prompt_tokens < 1 or output_tokens < 1:
        raise InputError(
            f"{count} requests of {prompt_tokens} prompt and {output_tokens} output tokens; each at least 1"
        )
    if not 0 <= spread <= 10:
        raise InputError(f"spread {spread}; give a standard deviation over mean between 0 and 10")
    # A stream of its own for each column: more requests only add to the end, they change none before.
    gaps, prompts, outputs = (np.random.default_rng((seed, column)) for column in range(3))
    return Requests(
        np.cumsum(gaps.exponential(size=count)) / rate_per_second,
        _lengths(prompts, prompt_tokens, spread, count),
        _lengths(outputs, output_tokens, spread, count),
    )


def _lengths(random: np.random.Generator, mean: int, spread: float, count: int) -> NDArray[np.int64]:
    variance = math.log1p(spread**2)  # of the normal underneath, so that mean and spread are those asked for
    drawn = random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), size=count)
    return np.maximum(1, np.rint(drawn)).astype(np.int64)


def read_requests(path: Path) -> Requests:
    """Requests of a .csv (with a header) or .jsonl file, with `arrival_seconds`, `prompt_tokens`, `output_tokens`.

    Other columns are ignored; rows may stand in any order.

    Raises:
        InputError: the file is missing, or a row lacks a field or holds no number; names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of requests")
    if path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{path}: requests are read from .csv or .jsonl, not {path.suffix or 'no suffix'}")
    try:
        rows = [
            _row(path, line, raw)
            for line, raw in (_csv_rows(path) if path.suffix == ".csv" else _json_rows(path))
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix} ({error})") from None
    if not rows:
        raise InputError(f"{path}: holds no request")
    if len(rows) > MOST_REQUESTS:
        raise InputError(
            f"{path}: {len(rows):,} requests are more than {MOST_REQUESTS:,}; take a part of them"
        )
    rows.sort(key=lambda row: row[0])
    arrivals, prompts, outputs = zip(*rows, strict=True)
    try:
        return Requests(
            np.array(arrivals), np.array(prompts, dtype=np.int64), np.array(outputs, dtype=np.int64)
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, dict(row)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                row = json_value(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: expected an object with {', '.join(FIELDS)}")
            yield number, row


def _row(path: Path, line: int, raw: dict[str, object]) -> tuple[float, int, int]:
    try:
        values = [float(str(raw[name])) for name in FIELDS]
    except KeyError as error:
        raise InputError(f"{path}:{line}: lacks {error.args[0]}; needs {', '.join(FIELDS)}") from error
    except ValueError as error:
        raise InputError(f"{path}:{line}: {error}; {', '.join(FIELDS)} must be numbers") from error
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{path}:{line}: {', '.join(FIELDS)} must be finite numbers")
    for name, value in zip(FIELDS[1:], values[1:], strict=True):
        if value != int(value) or not 1 <= value <= MOST_CONTEXT:
            raise InputError(
                f"{path}:{line}: {name} = {value:g}; use a whole number from 1 to {MOST_CONTEXT:,}"
            )
    return values[0], int(values[1]), int(values[2])
