"""Files of requests as columns: CSV, JSON, JSON lines and Parquet; the conversations of ShareGPT as lengths.

Every fault names the file, and its line or row where there is one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.reading import is_lfs_pointer, json_value, lfs_pointer_error

BYTES_PER_TOKEN = 4
"""UTF-8 bytes of a token where only text is known. Source: OpenAI help, "What are tokens and how to count them"."""


@dataclass(frozen=True)
class RequestTable:
    """Columns of equal length, and what was assumed to make them.

    Args:
        columns: values as the file has them: text, numbers, dates, lists; None where a row has none.
        places: where a row stands in the file, `:7` for a line.
        remarks: what a reader must know.
    """

    columns: dict[str, list[Any]]
    places: Sequence[str]
    remarks: tuple[str, ...] = ()


def read_table(path: Path) -> RequestTable:
    """The table of a file, by its suffix.

    Raises:
        InputError: the file is missing, of another kind, or broken.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of requests")
    if path.suffix not in _READERS:
        raise InputError(
            f"{path}: requests are read from {', '.join(_READERS)}, not {path.suffix or 'no suffix'}"
        )
    if is_lfs_pointer(path):
        raise lfs_pointer_error(path)
    try:
        return _READERS[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix} ({error})") from None


def _csv_table(path: Path) -> RequestTable:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        head = next(reader, [])
        if head and all(_is_value(name) for name in head):
            raise InputError(
                f"{path}:1: has no header, its first line holds values ({','.join(head)[:60]}); begin with a line that "
                "names the columns, as arrival_seconds,prompt_tokens,output_tokens"
            )
        rows, places = [], []
        for row in reader:
            if not row:
                continue
            if len(row) != len(head):
                raise InputError(
                    f"{path}:{reader.line_num}: {len(row)} values, the header names {len(head)} columns"
                )
            rows.append(row)
            places.append(f":{reader.line_num}")
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in head]
    return RequestTable(dict(zip(head, columns, strict=True)), places)


def _is_value(text: str) -> bool:
    """Whether this is a number or a date, and so no column's name."""
    return text.strip()[:1].isdigit() or text.strip()[:1] in ("-", ".", "+")


def _json_lines(path: Path) -> RequestTable:
    rows, places = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    rows.append(json_value(line))
                except json.JSONDecodeError as error:
                    raise InputError(f"{path}:{number}: not JSON ({error.msg})") from error
                places.append(f":{number}")
    return _of_objects(path, rows, places)


def _json_table(path: Path) -> RequestTable:
    try:
        rows = json_value(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of requests or conversations, got {type(rows).__name__}")
    return _of_objects(path, rows, [f", entry {number}" for number in range(1, len(rows) + 1)])


def _of_objects(path: Path, rows: list[Any], places: list[str]) -> RequestTable:
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}{place}: expected an object with one request, as prompt_tokens and output_tokens"
            )
    if rows and ("conversations" in rows[0] or "messages" in rows[0]):
        return _of_conversations(path, rows, places)
    names = dict.fromkeys(name for row in rows for name in row)
    return RequestTable({name: [row.get(name) for row in rows] for name in names}, places)


def _of_conversations(path: Path, rows: list[dict[str, Any]], places: list[str]) -> RequestTable:
    """Lengths of each conversation's first question and answer, estimated from their bytes."""
    lengths, kept, without = [], [], 0
    for row, place in zip(rows, places, strict=True):
        turns = row.get("conversations", row.get("messages"))
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise InputError(
                f"{path}{place}: a conversation must be a list of turns with who speaks and a text"
            )
        texts = [
            turn.get("value", turn.get("content"))
            for turn in turns
            if turn.get("from", turn.get("role")) != "system"
        ]
        if len(texts) < 2 or not all(isinstance(text, str) and text for text in texts[:2]):
            without += 1
            continue
        lengths.append([-(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN) for text in texts[:2]])
        kept.append(place)
    remarks: tuple[str, ...] = (
        f"lengths without a tokenizer: {BYTES_PER_TOKEN} bytes of UTF-8 count as a token",
        "of each conversation the first turn is the prompt, the second the answer; later turns are left out",
    )
    if without:
        remarks = (
            *remarks,
            f"{without:,} of {len(rows):,} conversations dropped: fewer than two turns of text",
        )
    columns = {"prompt_tokens": [p for p, _ in lengths], "output_tokens": [o for _, o in lengths]}
    return RequestTable(columns, kept, remarks)


def _parquet_table(path: Path) -> RequestTable:
    # Only here: importing pyarrow takes longer than everything else that other files need.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    places = [f", row {number}" for number in range(1, table.num_rows + 1)]
    return RequestTable({name: table.column(name).to_pylist() for name in table.column_names}, places)


_READERS: dict[str, Callable[[Path], RequestTable]] = {
    ".csv": _csv_table,
    ".json": _json_table,
    ".jsonl": _json_lines,
    ".parquet": _parquet_table,
}
