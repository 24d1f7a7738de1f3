"""Spans to a Chrome trace, which ui.perfetto.dev and chrome://tracing open: one track per rank and stream.

Format: "Trace Event Format", complete events (`ph: X`) with times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wingspan.schedule.result import Span, Stream
from wingspan.writing import write_json

_TRACKS = {stream: number for number, stream in enumerate(Stream)}


def write_trace(spans: Iterable[Span], path: Path) -> None:
    """Write all spans, times counted from the earliest one."""
    write_json(path, {"traceEvents": trace_events(list(spans)), "displayTimeUnit": "ms"})


def trace_events(spans: list[Span]) -> list[dict[str, Any]]:
    """The events: names of the tracks, then one event per span with peer and bytes in its arguments."""
    origin = min((s.start_seconds for s in spans), default=0.0)
    ranks = sorted({s.rank for s in spans})
    return [*_track_names(ranks), *(_event(span, origin) for span in spans)]


def _track_names(ranks: list[int]) -> list[dict[str, Any]]:
    names = []
    for rank in ranks:
        names.append({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}})
        for stream, track in _TRACKS.items():
            args = {"name": stream.value}
            names.append({"ph": "M", "name": "thread_name", "pid": rank, "tid": track, "args": args})
    return names


def _event(span: Span, origin_seconds: float) -> dict[str, Any]:
    layer = "" if span.layer is None else f" {span.layer}"
    known = span.model_dump(
        include={"layer", "micro_batch", "chunk", "peer", "sent_bytes", "received_bytes"}, exclude_none=True
    )
    return {
        "ph": "X",
        "name": f"{span.operation.value}{layer}",
        "cat": span.stream.value,
        "pid": span.rank,
        "tid": _TRACKS[span.stream],
        "ts": (span.start_seconds - origin_seconds) * 1e6,
        "dur": (span.end_seconds - span.start_seconds) * 1e6,
        "args": known,
    }
