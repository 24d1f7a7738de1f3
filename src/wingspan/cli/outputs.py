"""What every command checks about its outputs before it does any work."""

from __future__ import annotations

import os
from pathlib import Path

from wingspan.errors import InputError


def check_outputs(*paths: Path | None) -> None:
    """Each file that was asked for can be written.

    Raises:
        InputError: it is a folder, or its own folder is missing or closed; the line names it.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; create it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path}: cannot be written here; choose another place")


def check_one_format(as_json: bool, as_csv: bool) -> None:
    """Standard output holds one format.

    Raises:
        InputError: both were asked for.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv: standard output holds one of them; choose one")
