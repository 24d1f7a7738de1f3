"""Several values in one option: `1,2,4`, or `16..256` for a range that doubles."""

from __future__ import annotations

import math
from typing import TypeVar

from wingspan.errors import InputError

T = TypeVar("T")

_MOST_DIGITS = 30
_LONGEST_SHOWN = 60
_MOST_LAYERS = 100_000


def integers(text: str, option: str, most: int = 2**63 - 1) -> list[int]:
    """`16,64` or `16..256` (16, 32, 64, 128, 256), or both mixed; rising or not, but each from 1 to `most`.

    Raises:
        InputError: something else; names the option.
    """
    values: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not _is_number(first) or (dots and not _is_number(last)):
            raise InputError(
                f"{option} {_short(text)}: {_short(part.strip())!r} is neither a number nor a range such as 16..256"
            )
        value, end = int(first), int(last) if dots else int(first)
        if end > most:
            raise InputError(f"{option} {_short(text)}: {end:,} is more than {most:,}")
        if value < 1 or end < value:
            mend = "a range must rise from at least 1" if dots else "use 1 or more"
            where = "" if part == text else f"{part.strip()}: "
            raise InputError(f"{option} {text}: {where}{mend}")
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


def ids(text: str, option: str) -> list[int]:
    """A prompt as token ids, `5,9,17`.

    Raises:
        InputError: something else; names the option.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} {text!r}: expected whole numbers with commas, as 5,9,17") from None


def layer_numbers(text: str | None) -> tuple[int, ...] | None:
    """Layer numbers from `3-60` or `1,3,5` or both; None stays None."""
    if text is None:
        return None
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            each = range(int(first), int(last or first) + 1)
            if len(numbers) + len(each) > _MOST_LAYERS:
                raise InputError(f"--moe-layers {text}: more than {_MOST_LAYERS:,} layers")
            numbers += each
    except (ValueError, OverflowError):
        raise InputError(f"--moe-layers {text!r}: expected layer numbers, as 3-60 or 1,3,5") from None
    if not numbers or sorted(set(numbers)) != numbers:
        raise InputError(f"--moe-layers {text}: expected rising numbers")
    return tuple(numbers)


def _is_number(text: str) -> bool:
    """Digits of the alphabet that Python's `int` reads, and not thousands of them."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _once(values: list[T], text: str, option: str) -> list[T]:
    if len(set(values)) != len(values):
        raise InputError(f"{option} {text}: a value stands there twice")
    return values
