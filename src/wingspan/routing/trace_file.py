"""Routing traces on disk: Parquet, appended to and read row group by row group, so no trace has to fit in memory.

One row per token, in time order. Columns (docs/routing.md): `step`, `request`, `home_rank` (int32), and per MoE
layer `layer_<n>`, a fixed-size list of top-k int16 logical experts in the router's order. The file's key-value
metadata under `wingspan.routing_trace` is one JSON object: schema version, experts, ranks, origin.

Shapes: T tokens, L MoE layers, K experts per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wingspan.errors import InputError
from wingspan.reading import json_value
from wingspan.routing.trace import RoutingTrace, check_same_shape, concatenate
from wingspan.writing import OutputFile, is_stream, json_text

SCHEMA_VERSION = 1
_KEY = "wingspan.routing_trace"
_TOKEN_COLUMNS = {"step": "step_T", "request": "request_T", "home_rank": "home_rank_T"}
_CHOICES_PER_ROW_GROUP = 8_000_000
_MOST_TOKENS_PER_ROW_GROUP = 65_536


def check_trace_name(path: Path) -> None:
    """Raise `InputError` for a name under which a trace would not be found to be one."""
    if path.suffix != ".parquet" and not is_stream(path):
        raise InputError(f"{path}: a routing trace is a Parquet file; let its name end in .parquet")


class TraceWriter:
    """Appends pieces of a trace to a new file, which appears under its name only when it is complete.

    Use as a context manager; after an error inside it the unfinished file is removed.
    """

    def __init__(self, path: Path, origin: str) -> None:
        """Prepare to write `path`; `origin` says in words where the trace comes from."""
        check_trace_name(path)
        self.path = path
        self.num_tokens = 0
        self._origin = origin
        self._open = ExitStack()
        self._writer: Any = None
        self._held: list[RoutingTrace] = []
        self._held_tokens = 0
        self._first: RoutingTrace | None = None
        self._num_ranks = 0
        self._last_step = 0

    def append(self, piece: RoutingTrace) -> None:
        """Add tokens that follow those written so far; raises `InputError` where the shape or time order breaks."""
        if self._first is None:
            self._first = piece.take(slice(0, 0))
            self._writer = pq.ParquetWriter(
                self._file,
                _schema(piece.num_layers, piece.top_k),
                compression="zstd",
                # Bytes of a kind side by side compress better and faster here than a dictionary.
                use_dictionary=False,
                use_byte_stream_split=True,
                write_statistics=False,
            )
        check_same_shape(self._first, piece)
        if piece.num_tokens and piece.step_T[0] < self._last_step:
            raise InputError(
                f"{self.path}: a piece begins at step {int(piece.step_T[0])} after step {self._last_step}; "
                "append in time order"
            )
        self._num_ranks = max(self._num_ranks, piece.num_ranks)
        size = _row_group_tokens(piece)
        for part in piece.chunks(size):
            self._hold(part)
            if self._held_tokens >= size:
                self._write_rows(size)

    def _hold(self, part: RoutingTrace) -> None:
        self._held.append(part)
        self._held_tokens += part.num_tokens
        self.num_tokens += part.num_tokens
        self._last_step = int(part.step_T[-1])

    def _finish(self) -> None:
        """Write what is left."""
        if self._first is None:
            raise InputError(f"{self.path}: nothing was recorded, so there is no trace to write")
        if self._held_tokens:
            self._write_rows(self._held_tokens)
        about = {
            "version": SCHEMA_VERSION,
            "num_experts": self._first.num_experts,
            "num_ranks": self._num_ranks,
            "origin": self._origin,
        }
        self._writer.add_key_value_metadata({_KEY: json_text(about)})
        self._writer.close()

    def _write_rows(self, tokens: int) -> None:
        joined = concatenate(self._held)
        self._writer.write_table(_table(joined.take(slice(0, tokens))), row_group_size=tokens)
        rest = joined.take(slice(tokens, None))
        self._held, self._held_tokens = [rest], rest.num_tokens

    def __enter__(self) -> TraceWriter:
        self._file = self._open.enter_context(OutputFile(self.path))
        self._open.push(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def _end(self, kind: object, error: BaseException | None, traceback: object) -> None:  # noqa: ARG002 - theirs
        try:
            if error is None:
                self._finish()
        finally:
            if self._writer is not None:
                self._writer.is_open = (
                    False  # else it writes its end when it is forgotten, into a closed file
                )


@dataclass(frozen=True)
class TraceFile:
    """A trace on disk, described but not read."""

    path: Path
    num_tokens: int
    num_layers: int
    top_k: int
    num_experts: int
    num_ranks: int
    origin: str

    @classmethod
    def open(cls, path: Path) -> TraceFile:
        """Read the description; raises `InputError` where the file is no routing trace this version reads."""
        with _parquet(path) as file:
            about = _about(path, file.schema_arrow.metadata or {}, file.metadata.metadata or {})
            num_layers, top_k = _shape(path, file.schema_arrow)
            try:
                return cls(
                    path,
                    file.metadata.num_rows,
                    num_layers,
                    top_k,
                    int(about["num_experts"]),
                    int(about["num_ranks"]),
                    str(about["origin"]),
                )
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"{path}: its {_KEY} metadata lacks num_experts, num_ranks or origin, or one is no number ({error})"
                ) from None

    def chunks(self) -> Iterator[RoutingTrace]:
        """The trace piece by piece (a row group each), in time order."""
        with _parquet(self.path) as file:
            for group in range(file.num_row_groups):
                try:
                    table = file.read_row_group(group, use_threads=False)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(
                        f"{self.path}: damaged in row group {group} ({_first_line(error)})"
                    ) from None
                yield self._piece(table)

    def read(self) -> RoutingTrace:
        """The whole trace in memory."""
        pieces = list(self.chunks())
        return (
            concatenate(pieces) if pieces else self._piece(_schema(self.num_layers, self.top_k).empty_table())
        )

    def _piece(self, table: Any) -> RoutingTrace:
        experts_TLK = np.empty((table.num_rows, self.num_layers, self.top_k), dtype=np.int16)
        for layer in range(self.num_layers):
            column = table.column(f"layer_{layer}").combine_chunks()
            experts_TLK[:, layer] = column.flatten().to_numpy().reshape(-1, self.top_k)
        tokens = {field: table.column(name).to_numpy() for name, field in _TOKEN_COLUMNS.items()}
        try:
            return RoutingTrace(experts_TLK, num_experts=self.num_experts, num_ranks=self.num_ranks, **tokens)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None


def write_trace(path: Path, pieces: Iterable[RoutingTrace], origin: str) -> int:
    """Write a trace from its pieces; returns the number of tokens."""
    with TraceWriter(path, origin) as writer:
        for piece in pieces:
            writer.append(piece)
    return writer.num_tokens


def is_trace(path: Path) -> bool:
    """Whether a Parquet file says that it is a routing trace; raises `InputError` where it is no Parquet file."""
    with _parquet(path) as file:
        found = (file.schema_arrow.metadata or {}) | (file.metadata.metadata or {})
        return _KEY.encode() in found or "step" in file.schema_arrow.names


def read_trace(path: Path) -> RoutingTrace:
    """A whole trace in memory; raises `InputError` where the file is none."""
    return TraceFile.open(path).read()


def _schema(num_layers: int, top_k: int) -> Any:
    choices = pa.list_(pa.field("element", pa.int16(), nullable=False), top_k)
    tokens = [pa.field(name, pa.int32(), nullable=False) for name in _TOKEN_COLUMNS]
    layers = [pa.field(f"layer_{n}", choices, nullable=False) for n in range(num_layers)]
    return pa.schema(tokens + layers)


def _table(trace: RoutingTrace) -> Any:
    schema = _schema(trace.num_layers, trace.top_k)
    columns = [pa.array(getattr(trace, field)) for field in _TOKEN_COLUMNS.values()]
    for layer in range(trace.num_layers):
        flat = np.ascontiguousarray(trace.experts_TLK[:, layer]).reshape(-1)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=schema.field(3 + layer).type))
    return pa.Table.from_arrays(columns, schema=schema)


def _row_group_tokens(trace: RoutingTrace) -> int:
    """Row groups of bounded memory, whatever the model's shape."""
    return min(_MOST_TOKENS_PER_ROW_GROUP, max(1, _CHOICES_PER_ROW_GROUP // (trace.num_layers * trace.top_k)))


def _parquet(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; write one with `wingspan record` or `wingspan synthesize`")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({_first_line(error)})") from None


def _about(path: Path, *metadata: dict[bytes, bytes]) -> dict[str, Any]:
    for entries in metadata:
        if (text := entries.get(_KEY.encode())) is not None:
            try:
                about = json_value(text)
            except ValueError:
                raise InputError(f"{path}: its {_KEY} metadata is not JSON") from None
            if not isinstance(about, dict):
                raise InputError(f"{path}: its {_KEY} metadata is not a JSON object")
            version = about.get("version")
            if version != SCHEMA_VERSION:
                raise InputError(
                    f"{path}: routing trace of schema version {version}; this Wingspan reads {SCHEMA_VERSION}"
                )
            return about
    raise InputError(f"{path}: a Parquet file, but no routing trace (no {_KEY} in its metadata)")


def _shape(path: Path, schema: Any) -> tuple[int, int]:
    num_layers = sum(name.startswith("layer_") for name in schema.names)
    if not num_layers:
        raise InputError(f"{path}: no column layer_0, layer_1, ...")
    width = getattr(schema.field("layer_0").type, "list_size", 0) if "layer_0" in schema.names else 0
    expected = _schema(num_layers, max(1, width))
    for field in expected:
        if field.name not in schema.names or not schema.field(field.name).type.equals(field.type):
            raise InputError(f"{path}: column {field.name} is missing or not {field.type}")
    return num_layers, width


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
