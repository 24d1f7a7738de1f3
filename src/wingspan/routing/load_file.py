"""A load's file: what `wingspan import` writes, or a plain matrix, layers x experts.

A matrix is JSON (a list of lists), `.npy`, CSV or Parquet (a row per layer, a column per expert). CSV and Parquet may
have a header, and then a column `layer` that numbers the layers; or be a list with the columns `layer`, `expert` and
`count` (also `layer_id`, `expert_id`), one line per pair that was seen, as SGLang once wrote. A third axis, before the
others, is moments in time order.

Shapes: W moments, L layers, E logical experts.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.reading import check_kind, json_value
from wingspan.routing.recorded_load import SCHEMA, RecordedLoad

_LAYER, _EXPERT, _COUNT = ("layer", "layer_id"), ("expert", "expert_id"), ("count", "tokens", "load")
_NO_LOADS = ("prompt", "output", "arrival", "timestamp", "generated")
"""Words in the columns of tables of requests."""
_MOST_CELLS = 100_000_000
"""The most that a list of pairs is spread out to; the largest models have some 50,000."""


def read_load(path: Path, experts: int | None = None) -> RecordedLoad:
    """The load in a file, by its ending; a folder of CSV files is one load, summed.

    Args:
        path: `.npy`, `.csv`, `.parquet`, else JSON.
        experts: logical experts of a layer, where a list of pairs may lack the last ones.

    Raises:
        InputError: it cannot be read, or holds no load; the line names the file.
    """
    try:
        if path.is_dir():
            return _of_folder(path, experts)
        if path.suffix == ".npy":
            return _matrix(np.load(path, allow_pickle=False), path)
        if path.suffix == ".csv":
            return _of_table(*_csv_columns(path), path, experts)
        if path.suffix == ".parquet":
            return _of_table(*_parquet_columns(path), path, experts)
        if path.suffix in (".yaml", ".yml", ".txt"):
            raise InputError("loads are JSON, .npy, .csv or .parquet")
        return _of_json(json_value(path.read_text(encoding="utf-8")), path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise InputError(
            f"{path}: no matrix of loads, layers x experts, but lists in lists in lists"
        ) from None
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"{path}: no matrix of loads, layers x experts ({error})") from None


def _of_json(data: Any, path: Path) -> RecordedLoad:
    if isinstance(data, list):
        return _matrix(data, path)
    if isinstance(data, dict) and data.get("schema") == SCHEMA:
        return RecordedLoad.from_dict(data)
    check_kind(data, "its JSON", "a recorded load")
    raise InputError(
        "neither a matrix of loads, layers x experts, nor a recorded load; `wingspan import` reads what an engine wrote"
    )


def _matrix(values: Any, path: Path, layers: tuple[int, ...] | None = None) -> RecordedLoad:
    load = np.asarray(values)
    if load.dtype.kind not in "iuf":
        raise InputError(f"no matrix of numbers ({load.dtype})")
    return RecordedLoad(load[None] if load.ndim == 2 else load, layers, str(path))


def _of_folder(path: Path, experts: int | None) -> RecordedLoad:
    files = sorted(path.glob("*.csv"))
    if not files:
        raise InputError("no .csv in this folder")
    pairs = [_pairs(*_csv_columns(file), file) for file in files]
    return _spread_out(np.concatenate(pairs), path, experts)


def _of_table(
    names: list[str] | None, columns: Sequence[NDArray[Any]], path: Path, experts: int | None
) -> RecordedLoad:
    if names is not None and _column(names, _EXPERT) is not None:
        return _spread_out(_pairs(names, columns, path), path, experts)
    if names is not None and (wrong := [name for name in names if any(w in name.lower() for w in _NO_LOADS)]):
        raise InputError(f"its column {wrong[0]} is none of an expert: a table of requests, not of loads")
    number = None if names is None else _column(names, _LAYER)
    layers = None if number is None else tuple(_whole(columns[number], "layer").tolist())
    rows = np.stack([column for n, column in enumerate(columns) if n != number], axis=1)
    if layers is not None and any(b <= a for a, b in pairwise(layers)):
        raise InputError("its column of layers must rise from row to row")
    return _matrix(rows, path, layers)


def _pairs(names: list[str] | None, columns: Sequence[NDArray[Any]], path: Path) -> NDArray[Any]:
    """Layer, expert and count of each line: (lines, 3)."""
    places = [None if names is None else _column(names, known) for known in (_LAYER, _EXPERT, _COUNT)]
    if None in places:
        raise InputError(f"{path.name}: columns {names}; a list of loads has layer, expert and count")
    layer, expert, count = (columns[int(place or 0)] for place in places)
    return np.stack([_whole(layer, "layer"), _whole(expert, "expert"), np.asarray(count, np.float64)], axis=1)


def _spread_out(pairs: NDArray[Any], path: Path, experts: int | None) -> RecordedLoad:
    """A matrix of the layers that any line names, and of all experts up to the highest."""
    if not len(pairs):
        raise InputError("no line with a load in it")
    layers, row = np.unique(pairs[:, 0].astype(np.int64), return_inverse=True)
    expert = pairs[:, 1].astype(np.int64)
    width = int(expert.max()) + 1
    if experts is not None and width > experts:
        raise InputError(f"names expert {width - 1}; there are {experts}, 0 to {experts - 1}")
    load_LE = np.zeros((len(layers), _checked_width(experts or width, len(layers))))
    np.add.at(load_LE, (row, expert), pairs[:, 2])
    said = () if experts else (f"{width} experts: the highest number seen + 1",)
    return RecordedLoad(load_LE[None], tuple(layers.tolist()), str(path), said)


def _checked_width(experts: int, layers: int) -> int:
    if experts * layers > _MOST_CELLS:
        raise InputError(f"{layers} layers of {experts:,} experts are more than can be meant")
    return experts


def _whole(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or (numbers < 0).any() or (numbers != np.floor(numbers)).any():
        raise InputError(f"its column {name} must hold whole numbers, 0 or more")
    return numbers.astype(np.int64)


def _column(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((n for n, name in enumerate(names) if name.strip().lower() in known), None)


def _csv_columns(path: Path) -> tuple[list[str] | None, list[NDArray[Any]]]:
    """Names, where the first line holds any, and the columns as numbers."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(line, row) for line, row in enumerate(csv.reader(file), start=1) if any(row)]
    if not rows:
        raise InputError("is empty")
    names = None if all(map(_is_number, rows[0][1])) else rows[0][1]
    body = rows[1:] if names else rows
    width = len(rows[0][1])
    for line, row in body:
        if len(row) != width or not all(map(_is_number, row)):
            raise InputError(f"{path.name}: line {line}: expected {width} numbers, as the first line has")
    table = np.array([[float(value) for value in row] for _, row in body]).reshape(len(body), width)
    return names, list(table.T)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet_columns(path: Path) -> tuple[list[str] | None, list[NDArray[Any]]]:
    import pyarrow as pa  # takes longer to load than most commands
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, use_threads=False)
    except pa.ArrowException as error:
        raise InputError(f"not a Parquet file ({str(error).splitlines()[0]})") from None
    columns = [column.to_numpy() for column in table.columns]
    if not columns or any(column.dtype.kind not in "iuf" for column in columns):
        raise InputError("its columns must be numbers: one per expert, a row per layer")
    return table.column_names, columns
