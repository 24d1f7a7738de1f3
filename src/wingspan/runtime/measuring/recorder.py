"""What one rank did and when: time per operation and step, bytes per peer, and spans for a timeline if wanted.

Shapes: R ranks.
"""

from __future__ import annotations

import platform
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wingspan.runtime.ranks.clock import Clock, HostClock, Moment
from wingspan.schedule.result import Operation, Span, Stream

KEPT_STEPS = 1000
"""The latest steps of each phase that are kept, up to 13 kB each: who generates without end must not grow."""


def clock_name() -> str:
    """Names the clock that moments are read on, which counts from the machine's start (Linux: proc(5), boot_id)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


@dataclass(frozen=True)
class SpanKey:
    """Where in a step something happens."""

    layer: int | None = None
    micro_batch: int | None = None
    chunk: int | None = None


@dataclass(frozen=True)
class HeldUp:
    """By how much one exchange held this rank up, and when."""

    operation: Operation
    exposed_seconds: float
    key: SpanKey
    held: tuple[tuple[float, float], ...] = ()
    """From when until when, in order; kept for a timeline."""


@dataclass
class StepRecord:
    """One step of one rank."""

    phase: str
    tokens: int = 0
    start_seconds: float = 0.0
    seconds: float = 0.0
    operation_seconds: dict[Operation, float] = field(default_factory=dict)
    """Busy time; a transfer counts from start to end, whatever was computed meanwhile, and no less than is exposed."""
    exchanges: list[HeldUp] = field(default_factory=list)
    """In the order in which all ranks meet in them."""
    sent_R: list[int] = field(default_factory=list)
    received_R: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Noted:
    """What is to be recorded, once it is known when it was."""

    operation: Operation
    key: SpanKey
    start: Moment
    end: Moment
    inner: Sequence[tuple[Moment, Moment]]
    """What held this rank up in an exchange, or is not computing's own."""
    moved: tuple[Sequence[int], Sequence[int]] | None = None
    """Bytes of an exchange to every rank, and from every rank; None of computing."""

    @property
    def moments(self) -> list[Moment]:
        """All, in the order that `Recorder` takes them back."""
        return [*(moment for pair in self.inner for moment in pair), self.start, self.end]


class Recorder:
    """Collects `StepRecord`s, and every `Span` where `keep_spans` is set. Costs two clock readings a span.

    Args:
        rank: this one.
        ranks: in the group.
        keep_spans: for a timeline.
        keep_steps: the most of each phase; older ones are dropped. None: all.
        clock: of what computes.
    """

    def __init__(
        self,
        rank: int,
        ranks: int,
        *,
        keep_spans: bool = False,
        keep_steps: int | None = KEPT_STEPS,
        clock: Clock | None = None,
    ) -> None:
        self._rank = rank
        self._ranks = ranks
        self._keep_spans = keep_spans
        self._keep_steps = keep_steps
        self._clock = clock or HostClock()
        self._kept: dict[str, deque[StepRecord]] = {}
        self.ended: Counter[str] = Counter()
        """Steps of each phase so far, those that were dropped too."""
        self.spans: list[Span] = []
        self._step: StepRecord | None = None
        self._begin: Moment = 0.0
        self._noted: list[_Noted] = []

    @property
    def steps(self) -> list[StepRecord]:
        """Those that are kept, in order."""
        return sorted((s for kept in self._kept.values() for s in kept), key=lambda s: s.start_seconds)

    def since(self, ended: Mapping[str, int]) -> list[StepRecord]:
        """The steps that are kept of those beyond so many of each phase: phase by phase, in order."""
        new = {phase: self.ended[phase] - ended.get(phase, 0) for phase in sorted(self._kept)}
        return [
            step
            for phase, count in new.items()
            for step in islice(self._kept[phase], max(0, len(self._kept[phase]) - count), None)
        ]

    @property
    def open_step(self) -> StepRecord | None:
        """The step that has begun and not ended; its `seconds` are not known yet."""
        return self._step

    def now(self) -> Moment:
        """This moment, on a clock that all ranks of one machine share."""
        return self._clock.now()

    def begin_step(self, phase: str, tokens: int) -> None:
        """All that follows belongs to a new step of `tokens` tokens on this rank."""
        self._step = StepRecord(phase, tokens, sent_R=[0] * self._ranks, received_R=[0] * self._ranks)
        self._begin = self.now()

    def end_step(self) -> None:
        """Close the step; waits until all that was asked for in it is done."""
        if self._step is not None:
            self._step.seconds = self.settle()
            self._kept.setdefault(self._step.phase, deque(maxlen=self._keep_steps)).append(self._step)
            self.ended[self._step.phase] += 1
            self._step = None

    def settle(self) -> float:
        """Bring the open step's times up to date, waiting for what it asked for; the seconds since it began."""
        if self._step is None:
            return 0.0
        noted, self._noted = self._noted, []
        moments = [moment for each in noted for moment in each.moments]
        *seconds, begin, now = self._clock.read([*moments, self._begin, self.now()])
        self._step.start_seconds = begin
        found = iter(seconds)
        for each in noted:
            inner = [(next(found), next(found)) for _ in each.inner]
            self._record(self._step, each, inner, next(found), next(found))
        return now - begin

    def compute(
        self,
        operation: Operation,
        key: SpanKey,
        start: Moment,
        *,
        without: Sequence[tuple[Moment, Moment]] = (),
    ) -> Moment:
        """Record computing from `start` until now, but for what lies in between and is not its own; returns now."""
        end = self.now()
        if self._step is not None:
            self._noted.append(_Noted(operation, key, start, end, without))
        return end

    def transfer(
        self,
        operation: Operation,
        key: SpanKey,
        start: Moment,
        end: Moment,
        held: Sequence[tuple[Moment, Moment]],
        moved: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Record an exchange.

        Args:
            operation: dispatch or combine.
            key: where in the step.
            start, end: when it was under way.
            held: from when until when this rank did nothing else, in order.
            moved: bytes to every rank, and from every rank.
        """
        if self._step is not None:
            self._noted.append(_Noted(operation, key, start, end, held, moved))

    def _record(
        self, step: StepRecord, noted: _Noted, inner: list[tuple[float, float]], start: float, end: float
    ) -> None:
        """Take in one operation, now that its times are known."""
        operation, moved = noted.operation, noted.moved
        inner_seconds = sum(until - since for since, until in inner)
        if moved is None:
            start += inner_seconds
            _add(step, operation, end - start)
            stream = Stream.COMPUTE
        else:
            _add(step, operation, max(end - start, inner_seconds))
            kept = tuple(inner) if self._keep_spans else ()
            step.exchanges.append(HeldUp(operation, inner_seconds, noted.key, kept))
            for peer, (sent, received) in enumerate(zip(*moved, strict=True)):
                step.sent_R[peer] += sent
                step.received_R[peer] += received
            stream = Stream.COMMUNICATION
        if self._keep_spans:
            self._span(stream, operation, noted.key, start, end, moved or ((), ()))

    def _span(
        self,
        stream: Stream,
        operation: Operation,
        key: SpanKey,
        start: float,
        end: float,
        moved: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        sent, received = ({r: size for r, size in enumerate(of) if size and r != self._rank} for of in moved)
        travels = stream is Stream.COMMUNICATION
        self.spans.append(
            Span(
                rank=self._rank,
                stream=stream,
                operation=operation,
                start_seconds=start,
                end_seconds=end,
                layer=key.layer,
                micro_batch=key.micro_batch,
                chunk=key.chunk,
                peers=tuple(sent),
                peer_bytes=tuple(sent.values()),
                sent_bytes=sum(sent.values()) if travels else None,
                received_bytes=sum(received.values()) if travels else None,
            )
        )


def _add(step: StepRecord, operation: Operation, seconds: float) -> None:
    times = step.operation_seconds
    times[operation] = times.get(operation, 0.0) + seconds
