"""Several values in one option: `1,2,4`, or `16..256` for a range that doubles."""

from __future__ import annotations

import math
from typing import TypeVar

from wingspan.errors import InputError

T = TypeVar("T")


def integers(text: str, option: str) -> list[int]:
    """`16,64` or `16..256` (16, 32, 64, 128, 256), or both mixed; rising or not, but each at least 1.

    Raises:
        InputError: something else; names the option.
    """
    values: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not first.isdigit() or (dots and not last.isdigit()):
            raise InputError(
                f"{option} {text}: {part.strip()!r} is neither a number nor a range such as 16..256"
            )
        value, end = int(first), int(last) if dots else int(first)
        if value < 1 or end < value:
            raise InputError(f"{option} {text}: {part.strip()} must rise from at least 1")
        while value <= end:
            values.append(value)
            value *= 2
    return _once(values, text, option)


def numbers(text: str, option: str) -> list[float]:
    """`0,0.5,1`, each finite and at least 0.

    Raises:
        InputError: something else; names the option.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: give numbers separated by commas") from None
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise InputError(f"{option} {text}: each number must be finite and at least 0")
    return _once(values, text, option)


def words(text: str, option: str) -> list[str]:
    """`a,b`, none empty.

    Raises:
        InputError: an empty one, or one twice; names the option.
    """
    values = [part.strip() for part in text.split(",")]
    if not all(values):
        raise InputError(f"{option} {text!r}: a name is empty")
    return _once(values, text, option)


def _once(values: list[T], text: str, option: str) -> list[T]:
    if len(set(values)) != len(values):
        raise InputError(f"{option} {text}: a value stands there twice")
    return values
