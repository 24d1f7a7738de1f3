"""Whether all ranks were given the same: a few lines of text per rank are compared before anything is loaded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from wingspan.errors import InputError
from wingspan.runtime.digest import digest_text

_DECIDE = ("wingspan", "torch", "transformers", "safetensors", "numpy")
_SHOWN_LETTERS = 80


def versions() -> dict[str, str]:
    """Those that decide what a rank computes and how it talks to others."""
    packages = {name: version(name) for name in _DECIDE}
    return {
        f"version of {name}": text for name, text in {"Python": platform.python_version(), **packages}.items()
    }


def told(given: Mapping[str, str]) -> dict[str, str]:
    """What a rank was given, as it tells the others: long values cut, with a digest of the whole."""
    return {name: _short(value) for name, value in given.items()}


def check_same(given_R: Sequence[Mapping[str, str]]) -> None:
    """Compare what each rank was given.

    Args:
        given_R: a value by name, per rank.

    Raises:
        InputError: two ranks differ; names the first difference, both values and the number of others.
    """
    first = given_R[0]
    for rank, other in enumerate(given_R):
        different = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if different:
            name = different[0]
            more = f" (and {len(different) - 1} more differences)" if len(different) > 1 else ""
            raise InputError(
                f"{name} is {first.get(name, 'not there')} on rank 0 and {other.get(name, 'not there')} on rank "
                f"{rank}{more}; give every rank the same"
            )


def _short(value: str) -> str:
    if len(value) <= _SHOWN_LETTERS:
        return value
    return f"{value[:_SHOWN_LETTERS]}... ({digest_text(value.encode())})"
