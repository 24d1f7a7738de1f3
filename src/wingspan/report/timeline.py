"""The timeline of a step: what each stream of a few ranks does, and when; the whole step, and two layers close up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wingspan.report.figures import Figure, axis, figure, row_axis
from wingspan.report.palette import OPERATIONS, PAPER, ink_on
from wingspan.report.units import bytes_text, seconds_text, time_scale
from wingspan.schedule.result import Operation, Span, Stream

_ROW_HEIGHT = 34
_PREDICTED, _MEASURED = ", predicted", ", measured"


@dataclass(frozen=True)
class _Bar:
    """A span in its row, at seconds since the picture's begin."""

    span: Span
    row: str
    begin: float
    end: float


def whole_step(spans: Sequence[Span], ranks: dict[int, str], ended_seconds: float | None = None) -> Figure:
    """All of the step; `ranks` are those to show, with their names; `ended_seconds` where no span lasts until then."""
    origin = _first(spans, ranks)
    bars = _placed(spans, ranks, origin)
    return _gantt(bars, _rows(ranks, ("",)), labelled=False, window=_until(bars, ended_seconds, origin))


def close_up(spans: Sequence[Span], ranks: dict[int, str]) -> tuple[Figure, int, int] | None:
    """Two neighbouring MoE layers from the middle of the step, with first and last layer; None without MoE layers."""
    layers = _middle(spans, ranks)
    if layers is None:
        return None
    origin = _first(spans, ranks)
    bars, window = _near(_placed(spans, ranks, origin), layers)
    return _gantt(bars, _rows(ranks, ("",)), labelled=True, window=window), *layers


def both_steps(
    predicted: Sequence[Span],
    measured: Sequence[Span],
    ranks: dict[int, str],
    ended_seconds: float | None = None,
) -> Figure:
    """Two steps from their begins on one axis, rank by rank a row of the one above a row of the other."""
    bars = [
        bar
        for spans, of in ((predicted, _PREDICTED), (measured, _MEASURED))
        for bar in _placed(spans, ranks, _first(spans, ranks), of)
    ]
    window = _until(bars, ended_seconds, _first(measured, ranks))
    return _gantt(bars, _rows(ranks, (_PREDICTED, _MEASURED)), labelled=False, window=window)


def both_close_up(
    predicted: Sequence[Span], measured: Sequence[Span], ranks: dict[int, str]
) -> tuple[Figure, int, int] | None:
    """The same two layers of two steps, each from its own begin of the first; None without MoE layers."""
    layers = _middle(predicted, ranks)
    if layers is None or _middle(measured, ranks) is None:
        return None
    kept, longest = [], 0.0
    for spans, of in ((predicted, _PREDICTED), (measured, _MEASURED)):
        bars, (begin, end) = _near(_placed(spans, ranks, 0.0, of), layers)
        kept += [replace(bar, begin=bar.begin - begin, end=bar.end - begin) for bar in bars]
        longest = max(longest, end - begin)
    rows, since = _rows(ranks, (_PREDICTED, _MEASURED)), f"time since layer {layers[0]} began"
    return _gantt(kept, rows, labelled=True, window=(0.0, longest), since=since), *layers


def _middle(spans: Sequence[Span], ranks: dict[int, str]) -> tuple[int, int] | None:
    """Two neighbouring MoE layers from the middle of the step."""
    computed = (span for span in spans if span.operation is Operation.EXPERT and span.rank in ranks)
    layers = sorted({span.layer for span in computed if span.layer is not None})
    if not layers:
        return None
    first = (len(layers) - 1) // 2
    return layers[first], layers[min(len(layers) - 1, first + 1)]


def _near(bars: list[_Bar], layers: tuple[int, int]) -> tuple[list[_Bar], tuple[float, float]]:
    """The bars of these layers, and when they begin and end.

    What overlaps them from other layers belongs to the picture too: overlap is the point of it.
    """
    inside = [b for b in bars if b.span.layer is not None and layers[0] <= b.span.layer <= layers[1]]
    begin, end = min(b.begin for b in inside), max(b.end for b in inside)
    return [b for b in bars if b.end > begin and b.begin < end], (begin, end)


def _until(bars: list[_Bar], ended_seconds: float | None, origin: float) -> tuple[float, float]:
    """From the begin to the last bar's end, or the step's where that is later."""
    last = max((bar.end for bar in bars), default=0.0)
    return 0.0, last if ended_seconds is None else max(last, ended_seconds - origin)


def _first(spans: Sequence[Span], ranks: dict[int, str]) -> float:
    return min((span.start_seconds for span in spans if span.rank in ranks), default=0.0)


def _placed(spans: Sequence[Span], ranks: dict[int, str], origin: float, of: str = "") -> list[_Bar]:
    ordered = sorted((s for s in spans if s.rank in ranks), key=lambda span: span.start_seconds)
    return [
        _Bar(s, _row(s.rank, ranks[s.rank], s.stream, of), s.start_seconds - origin, s.end_seconds - origin)
        for s in ordered
    ]


def _gantt(
    bars: list[_Bar],
    rows: list[str],
    *,
    labelled: bool,
    window: tuple[float, float],
    since: str = "time since the step began",
) -> Figure:
    begin, end = window
    scale, unit = time_scale(end)
    several = len({bar.span.micro_batch for bar in bars} - {None}) > 1
    data = []
    for operation in OPERATIONS:
        if own := [bar for bar in bars if bar.span.operation is operation]:
            whole = [begin <= bar.begin and bar.end <= end for bar in own]
            names = [
                _label(operation, bar.span, several) if w else "" for bar, w in zip(own, whole, strict=True)
            ]
            data.append(_drawn(operation, own, scale) | (_labels(operation, names) if labelled else {}))
    margin = (end - begin) * 0.005
    return figure(
        data,
        height=92 + _ROW_HEIGHT * len(rows),
        barmode="overlay",
        bargap=0.18,
        xaxis=axis(f"{since}, {unit}", range=[(begin - margin) * scale, (end + margin) * scale]),
        yaxis=row_axis(rows),
        uniformtext={"minsize": 10, "mode": "hide"},
    )


def _rows(ranks: dict[int, str], sources: Sequence[str]) -> list[str]:
    return [
        _row(rank, name, stream, of) for rank, name in ranks.items() for stream in Stream for of in sources
    ]


def _row(rank: int, name: str, stream: Stream, of: str) -> str:
    named = f"rank {rank} ({name})" if stream is Stream.COMPUTE and of != _MEASURED else f"rank {rank}"
    return f"{named}  {stream.value}{of}"


def _drawn(operation: Operation, bars: list[_Bar], scale: float) -> dict[str, object]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": _name(operation),
        "y": [bar.row for bar in bars],
        "base": [round(bar.begin * scale, 4) for bar in bars],
        "x": [round((bar.end - bar.begin) * scale, 4) for bar in bars],
        "marker": {"color": OPERATIONS[operation], "line": {"width": 0}},
        "hovertext": [_hover(bar) for bar in bars],
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


def _hover(bar: _Bar) -> str:
    span = bar.span
    parts = [f"<b>{_name(span.operation)}</b> on rank {span.rank}"]
    for label, value in (("layer", span.layer), ("micro-batch", span.micro_batch), ("chunk", span.chunk)):
        if value is not None:
            parts.append(f"{label} {value}")
    parts.append(f"from {seconds_text(bar.begin)}, for {seconds_text(bar.end - bar.begin)}")
    for label, size in (("sent", span.sent_bytes), ("received", span.received_bytes)):
        if size:
            parts.append(f"{label} {bytes_text(size)}")
    return "<br>".join(parts)
