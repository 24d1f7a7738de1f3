"""What every command checks about its outputs before it does any work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wingspan.errors import InputError
from wingspan.writing import is_stream, unfinished


def check_outputs(*paths: Path | None) -> None:
    """Each file that was asked for can be written, and no two are the same.

    Raises:
        InputError: it is a folder, or its own folder is missing or closed; the line names it.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        _check_output(path)
    places = [os.path.realpath(path) for path in given if not is_stream(path)]
    twice = [path for path in given if places.count(os.path.realpath(path)) > 1]
    if twice:
        raise InputError(f"{twice[0]}: is named for two outputs; give each a file of its own")


def _check_output(path: Path) -> None:
    try:
        if is_stream(path):
            if not os.access(path, os.W_OK):
                raise InputError(f"{path}: cannot be written to; choose another place")
            return
        place = Path(os.path.realpath(path))
        if place.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
        if not place.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
        # Outputs are written beside their place first, so both must be open.
        if not all(os.access(p, os.W_OK) for p in (place, place.parent) if p.exists()):
            raise InputError(f"{path}: cannot be written here; choose another place")
        os.lstat(place)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written here ({error}); choose another place") from None


def check_output_folder(path: Path) -> None:
    """A folder to fill can be made, with those above it, or is there and empty.

    Raises:
        InputError: it is a file, holds something, or its place is closed; the line names it.
    """
    try:
        place = Path(os.path.realpath(path))
        if place.is_dir() and any(place.iterdir()):
            what = "holds a model already" if (place / "config.json").exists() else "is not empty"
            raise InputError(f"{path}: {what}; give another folder")
        there = next(p for p in (place, *place.parents) if os.path.lexists(p))
        if not there.is_dir():
            raise InputError(f"{path}: {there} is no folder; give another place")
        if not os.access(there, os.W_OK):
            raise InputError(f"{path}: cannot be written here; choose another place")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written here ({error}); choose another place") from None


@contextmanager
def cleared_up(*paths: Path | None) -> Iterator[None]:
    """Around the work of ranks: one that is ended by a signal leaves its unfinished file, which goes then."""
    try:
        yield
    finally:
        for path in paths:
            if path is not None:
                unfinished(path).unlink(missing_ok=True)


def check_one_format(as_json: bool, as_csv: bool) -> None:
    """Standard output holds one format.

    Raises:
        InputError: both were asked for.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv: standard output holds one of them; choose one")
