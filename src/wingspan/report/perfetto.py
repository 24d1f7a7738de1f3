"""A run's timeline as a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format": complete events (`ph: X`), which nest by time within a thread; flow events (`s`, `f`)
between them; instants (`i`); names and order of processes and threads (`M`); times in microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

from wingspan.schedule.rebalance_result import Decision, Migrated, RebalanceEvent
from wingspan.schedule.result import Span, StepSpan, Stream
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.writing import write_json

Event = dict[str, Any]

_COMPUTE, _COMMUNICATION = 1, 2
"""Threads of a rank. Transfers that are under way at once lie on further ones, as slices of a thread must nest."""
_OF_RUN = 0
"""The thread of what concerns the whole run."""


def write_trace(timeline: RunTimeline, path: Path, events: Sequence[RebalanceEvent] = ()) -> None:
    """Write all spans, times counted from the earliest one; of `events` what live balancing did."""
    write_json(path, {"traceEvents": trace_events(timeline, events), "displayTimeUnit": "ms"})


def trace_events(timeline: RunTimeline, events: Sequence[RebalanceEvent] = ()) -> list[Event]:
    """The events, in order of time: names of the tracks, slices with the arrows between them, migrations.

    A rank is a process. On its compute thread a phase holds its steps, a step its micro-batches, these what is computed
    and waited for; transfers are on a thread beside it, with an arrow from each to those that received its rows.
    """
    everything: list[Span | StepSpan] = [*timeline.steps, *timeline.spans]
    begin = min((each.start_seconds for each in everything), default=0.0)
    clock = _SliceMaker(begin)
    ranks = sorted({each.rank for each in everything})
    slices: list[Event] = []
    transfers: dict[tuple[object, ...], dict[int, tuple[Span, Event]]] = {}
    names: list[Event] = []
    for rank in ranks:
        steps = sorted((s for s in timeline.steps if s.rank == rank), key=lambda s: s.start_seconds)
        own = sorted((s for s in timeline.spans if s.rank == rank), key=lambda s: s.start_seconds)
        computed = [span for span in own if span.stream is Stream.COMPUTE and clock.draws(span)]
        slices += [*_phases(steps, clock), *_micro_batches(computed, steps, clock)]
        slices += [clock.slice(span.operation.value, span, _COMPUTE, _about(span)) for span in computed]
        moved = [span for span in own if span.stream is Stream.COMMUNICATION]
        lanes = _lanes(moved)
        for (span, lane), key in zip(lanes, _meetings(moved, steps), strict=True):
            slices.append(clock.slice(span.operation.value, span, _COMMUNICATION + lane, _about(span)))
            transfers.setdefault(key, {})[rank] = (span, slices[-1])
        names += _named(rank, f"rank {rank}", _threads(max((lane for _, lane in lanes), default=0)))
    found = [*slices, *_arrows(transfers.values())]
    if events:
        process = max(ranks, default=0) + 1
        names += _named(process, "balancing", {_OF_RUN: "migrations"})
        found += _balancing(events, timeline, process, clock)
    # What begins at once lies in what lasts longer; an arrow begins after its slice.
    return [*names, *sorted(found, key=lambda event: (event["ts"], -event.get("dur", 0.0)))]


class _SliceMaker:
    """Seconds of the run to whole nanoseconds since its begin, so that what nests still does after rounding."""

    def __init__(self, begin_seconds: float) -> None:
        self._begin_seconds = begin_seconds

    def nanoseconds(self, seconds: float) -> int:
        return round((seconds - self._begin_seconds) * 1e9)

    def draws(self, span: Span) -> bool:
        """Whether a span lasts at all: a wait is a difference of readings, which may be a rounding error long."""
        return self.nanoseconds(span.start_seconds) < self.nanoseconds(span.end_seconds)

    def slice(self, name: str, span: Span | StepSpan, thread: int, about: dict[str, Any]) -> Event:
        return self.between(name, span.rank, thread, span.start_seconds, span.end_seconds, about)

    def between(
        self, name: str, process: int, thread: int, start: float, end: float, about: dict[str, Any]
    ) -> Event:
        first = self.nanoseconds(start)
        # No clock tells the time of a transfer that it saw begin and end at once, but its rows did travel.
        last = max(first + 1, self.nanoseconds(end))
        return {
            "ph": "X",
            "name": name,
            "pid": process,
            "tid": thread,
            "ts": first / 1e3,
            "dur": (last - first) / 1e3,
            "args": about,
        }


def _threads(last_lane: int) -> dict[int, str]:
    more = {_COMMUNICATION + lane: f"communication {lane + 1}" for lane in range(1, last_lane + 1)}
    return {_COMPUTE: "compute", _COMMUNICATION: "communication", **more}


def _named(process: int, name: str, threads: dict[int, str]) -> list[Event]:
    """Name and place of a process and its threads."""
    of_process = {"ph": "M", "pid": process}
    events: list[Event] = [
        of_process | {"name": "process_name", "args": {"name": name}},
        of_process | {"name": "process_sort_index", "args": {"sort_index": process}},
    ]
    for thread, title in threads.items():
        of_thread = of_process | {"tid": thread}
        events.append(of_thread | {"name": "thread_name", "args": {"name": title}})
        events.append(of_thread | {"name": "thread_sort_index", "args": {"sort_index": thread}})
    return events


def _about(span: Span) -> dict[str, Any]:
    """What a slice says of itself beside its name, which all layers share, so that a viewer can total them."""
    fields = {"layer", "micro_batch", "chunk", "sent_bytes", "received_bytes"}
    sent = {f"rank {peer}": size for peer, size in zip(span.peers, span.peer_bytes, strict=False)}
    return span.model_dump(include=fields, exclude_none=True) | ({"sent_bytes_to": sent} if sent else {})


def _phases(steps: Sequence[StepSpan], clock: _SliceMaker) -> Iterator[Event]:
    """A slice for every run of steps of one phase, and one for each of these."""
    for phase, group in groupby(steps, key=lambda step: step.phase):
        inside = list(group)
        first, last = inside[0], inside[-1]
        yield clock.between(
            phase, first.rank, _COMPUTE, first.start_seconds, last.end_seconds, {"steps": len(inside)}
        )
        for step in inside:
            about = {"step": step.number} | ({} if step.tokens is None else {"tokens": step.tokens})
            yield clock.slice(f"{phase} step", step, _COMPUTE, about)


def _step_of(span: Span, steps: Sequence[StepSpan]) -> int:
    """In which of a rank's steps a span began, as a place in the list."""
    return bisect_right(steps, span.start_seconds, key=lambda step: step.start_seconds)


def _micro_batches(
    computed: Sequence[Span], steps: Sequence[StepSpan], clock: _SliceMaker
) -> Iterator[Event]:
    """A slice for each stretch in which a rank is at one micro-batch."""
    for (_, micro_batch), group in groupby(computed, key=lambda s: (_step_of(s, steps), s.micro_batch)):
        if micro_batch is not None:
            inside = list(group)
            start, end = inside[0].start_seconds, max(span.end_seconds for span in inside)
            yield clock.between(f"micro-batch {micro_batch}", inside[0].rank, _COMPUTE, start, end, {})


def _lanes(moved: Sequence[Span]) -> list[tuple[Span, int]]:
    """Each transfer with the first lane on which none is under way as it begins."""
    free: list[float] = []
    placed = []
    for span in moved:
        lane = next((n for n, end in enumerate(free) if end <= span.start_seconds), len(free))
        free[lane : lane + 1] = [span.end_seconds]
        placed.append((span, lane))
    return placed


def _meetings(moved: Sequence[Span], steps: Sequence[StepSpan]) -> list[tuple[object, ...]]:
    """Which exchange each transfer of a rank is its part of."""
    return [
        (_step_of(span, steps), span.operation, span.layer, span.micro_batch, span.chunk) for span in moved
    ]


def _arrows(exchanges: Iterable[dict[int, tuple[Span, Event]]]) -> Iterator[Event]:
    """From the begin of a sender's slice to the end of the slice of each rank that received its rows."""
    numbers = count(1)
    for parts in exchanges:
        for span, sender in parts.values():
            for peer in span.peers:
                if peer not in parts:
                    continue
                receiver = parts[peer][1]
                # Inside the slice, as an arrow belongs to the slice that holds its moment.
                arrived = round(receiver["ts"] * 1e3 + receiver["dur"] * 1e3 - 1) / 1e3
                arrow = {"name": "rows", "cat": span.operation.value, "id": next(numbers)}
                yield {"ph": "s", **arrow, **_place(sender), "ts": sender["ts"]}
                yield {"ph": "f", "bp": "e", **arrow, **_place(receiver), "ts": arrived}


def _place(event: Event) -> Event:
    return {"pid": event["pid"], "tid": event["tid"]}


def _balancing(
    events: Sequence[RebalanceEvent], timeline: RunTimeline, process: int, clock: _SliceMaker
) -> Iterator[Event]:
    """A slice for each migration, from step to step of decode, and an instant for whatever else was decided."""
    ended = {
        step.number: step.end_seconds for step in timeline.steps if step.phase == "decode" and step.rank == 0
    }
    last = max(ended, default=0)
    for event in events if ended else ():
        about = event.model_dump(mode="json", exclude_none=True)
        if isinstance(event, Migrated):
            start, end = (ended[min(step, last)] for step in (event.first_step, event.last_step))
            yield clock.between("migration", process, _OF_RUN, start, end, about)
        else:
            name = event.verdict if isinstance(event, Decision) else event.kind
            moment = {
                "ts": clock.nanoseconds(ended[min(event.step, last)]) / 1e3,
                "pid": process,
                "tid": _OF_RUN,
            }
            yield {"ph": "i", "s": "p", "name": name, **moment, "args": about}
