"""The timeline of a step: what each stream of a few ranks does, and when; the whole step, and two layers close up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wingspan.report.figures import Figure, axis, figure, row_axis
from wingspan.report.palette import OPERATIONS, PAPER, ink_on
from wingspan.report.units import bytes_text, seconds_text, time_scale
from wingspan.schedule.result import Operation, Span, Stream

_ROW_HEIGHT = 34


def whole_step(spans: Sequence[Span], ranks: dict[int, str]) -> Figure:
    """All of the step; `ranks` are those to show, with their names."""
    return _gantt(_shown(spans, ranks), ranks, labelled=False)


def close_up(spans: Sequence[Span], ranks: dict[int, str]) -> tuple[Figure, int, int] | None:
    """Two neighbouring MoE layers from the middle of the step, with first and last layer; None without MoE layers."""
    shown = _shown(spans, ranks)
    layers = sorted({s.layer for s in shown if s.operation is Operation.EXPERT and s.layer is not None})
    if not layers:
        return None
    first = layers[(len(layers) - 1) // 2]
    last = layers[min(len(layers) - 1, (len(layers) - 1) // 2 + 1)]
    inside = [s for s in shown if s.layer is not None and first <= s.layer <= last]
    begin, end = min(s.start_seconds for s in inside), max(s.end_seconds for s in inside)
    # What overlaps the window from other layers belongs to the picture too: overlap is the point of it.
    window = [s for s in shown if s.end_seconds > begin and s.start_seconds < end]
    origin = min(s.start_seconds for s in shown)
    return (
        _gantt(window, ranks, labelled=True, window=(begin - origin, end - origin), origin=origin),
        first,
        last,
    )


def _shown(spans: Iterable[Span], ranks: dict[int, str]) -> list[Span]:
    return sorted((span for span in spans if span.rank in ranks), key=lambda span: span.start_seconds)


def _gantt(
    spans: list[Span],
    ranks: dict[int, str],
    *,
    labelled: bool,
    window: tuple[float, float] | None = None,
    origin: float | None = None,
) -> Figure:
    origin = min((s.start_seconds for s in spans), default=0.0) if origin is None else origin
    begin, end = window or (0.0, max((s.end_seconds - origin for s in spans), default=0.0))
    scale, unit = time_scale(end)
    rows = [_row(rank, name, stream) for rank, name in ranks.items() for stream in Stream]
    several = len({s.micro_batch for s in spans}) > 1
    data = []
    for operation in OPERATIONS:
        if own := [s for s in spans if s.operation is operation]:
            bars = _bars(operation, own, ranks, origin, scale)
            whole = [begin <= s.start_seconds - origin and s.end_seconds - origin <= end for s in own]
            names = [_label(operation, s, several) if w else "" for s, w in zip(own, whole, strict=True)]
            data.append(bars | _labels(operation, names) if labelled else bars)
    margin = (end - begin) * 0.005
    return figure(
        data,
        height=92 + _ROW_HEIGHT * len(rows),
        barmode="overlay",
        bargap=0.18,
        xaxis=axis(
            f"time since the step began, {unit}", range=[(begin - margin) * scale, (end + margin) * scale]
        ),
        yaxis=row_axis(rows),
        uniformtext={"minsize": 10, "mode": "hide"},
    )


def _row(rank: int, name: str, stream: Stream) -> str:
    return (
        f"rank {rank} ({name})  {stream.value}"
        if stream is Stream.COMPUTE
        else f"rank {rank}  {stream.value}"
    )


def _bars(
    operation: Operation, spans: list[Span], ranks: dict[int, str], origin: float, scale: float
) -> dict[str, object]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": _name(operation),
        "y": [_row(s.rank, ranks[s.rank], s.stream) for s in spans],
        "base": [round((s.start_seconds - origin) * scale, 4) for s in spans],
        "x": [round((s.end_seconds - s.start_seconds) * scale, 4) for s in spans],
        "marker": {"color": OPERATIONS[operation], "line": {"width": 0}},
        "hovertext": [_hover(s, origin) for s in spans],
        "hoverinfo": "text",
    }


def _labels(operation: Operation, names: list[str]) -> dict[str, object]:
    """Names inside the bars, and a fine line between them."""
    return {
        "text": names,
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "insidetextfont": {"color": ink_on(OPERATIONS[operation])},
        "marker": {"color": OPERATIONS[operation], "line": {"width": 0.5, "color": PAPER}},
    }


def _name(operation: Operation) -> str:
    return operation.value.replace("_", " ")


def _label(operation: Operation, span: Span, several: bool) -> str:
    """The operation, and where there are several micro-batches which one: a, b, ..."""
    name = _name(operation)
    if not several or span.micro_batch is None:
        return name
    return f"{name} {chr(ord('a') + span.micro_batch % 26)}"


def _hover(span: Span, origin: float) -> str:
    parts = [f"<b>{_name(span.operation)}</b> on rank {span.rank}"]
    for label, value in (("layer", span.layer), ("micro-batch", span.micro_batch), ("chunk", span.chunk)):
        if value is not None:
            parts.append(f"{label} {value}")
    start, length = span.start_seconds - origin, span.end_seconds - span.start_seconds
    parts.append(f"from {seconds_text(start)}, for {seconds_text(length)}")
    for label, size in (("sent", span.sent_bytes), ("received", span.received_bytes)):
        if size:
            parts.append(f"{label} {bytes_text(size)}")
    return "<br>".join(parts)
