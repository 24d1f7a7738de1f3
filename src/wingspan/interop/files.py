"""Read files of other programs, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.reading import json_value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    try:
        return json_value(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object per line."""
    records = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json_value(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is not JSON ({error})") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}: line {number} is not a JSON object")
        records.append(record)
    return records
