"""What one rank did and when: time per operation and step, bytes per peer, and spans for a timeline if wanted.

Shapes: R ranks.
"""

from __future__ import annotations

import platform
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wingspan.schedule.result import Operation, Span, Stream

KEPT_STEPS = 1000
"""The latest steps of each phase that are kept, up to 13 kB each: who generates without end must not grow."""


def clock_name() -> str:
    """Names the clock of `Recorder.now`, which counts from the machine's start (Linux: proc(5), boot_id)."""
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


class Recorder:
    """Collects `StepRecord`s, and every `Span` where `keep_spans` is set. Costs two clock readings a span.

    Args:
        rank: this one.
        ranks: in the group.
        keep_spans: for a timeline.
        keep_steps: the most of each phase; older ones are dropped. None: all.
    """

    def __init__(
        self, rank: int, ranks: int, *, keep_spans: bool = False, keep_steps: int | None = KEPT_STEPS
    ) -> None:
        self._rank = rank
        self._ranks = ranks
        self._keep_spans = keep_spans
        self._keep_steps = keep_steps
        self._kept: dict[str, deque[StepRecord]] = {}
        self.ended: Counter[str] = Counter()
        """Steps of each phase so far, those that were dropped too."""
        self.spans: list[Span] = []
        self._step: StepRecord | None = None

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

    @staticmethod
    def now() -> float:
        """Seconds on a clock that all ranks of one machine share."""
        return time.monotonic()

    def begin_step(self, phase: str, tokens: int) -> None:
        """All that follows belongs to a new step of `tokens` tokens on this rank."""
        self._step = StepRecord(phase, tokens, sent_R=[0] * self._ranks, received_R=[0] * self._ranks)
        self._step.start_seconds = self.now()

    def end_step(self) -> None:
        """Close the step."""
        if self._step is not None:
            self._step.seconds = self.now() - self._step.start_seconds
            self._kept.setdefault(self._step.phase, deque(maxlen=self._keep_steps)).append(self._step)
            self.ended[self._step.phase] += 1
            self._step = None

    def compute(self, operation: Operation, key: SpanKey, start_seconds: float) -> float:
        """Record computing from `start_seconds` until now; returns now."""
        end = self.now()
        if self._step is not None:
            self._add(operation, end - start_seconds)
            if self._keep_spans:
                self._span(Stream.COMPUTE, operation, key, start_seconds, end)
        return end

    def transfer(
        self,
        operation: Operation,
        key: SpanKey,
        start_seconds: float,
        end_seconds: float,
        held: Sequence[tuple[float, float]],
        moved: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Record an exchange.

        Args:
            operation: dispatch or combine.
            key: where in the step.
            start_seconds, end_seconds: when it was under way.
            held: from when until when this rank did nothing else, in order.
            moved: bytes to every rank, and from every rank.
        """
        if self._step is None:
            return
        exposed_seconds = sum(end - start for start, end in held)
        self._add(operation, max(end_seconds - start_seconds, exposed_seconds))
        kept = tuple(held) if self._keep_spans else ()
        self._step.exchanges.append(HeldUp(operation, exposed_seconds, key, kept))
        for peer, (sent, received) in enumerate(zip(*moved, strict=True)):
            self._step.sent_R[peer] += sent
            self._step.received_R[peer] += received
        if self._keep_spans:
            self._span(Stream.COMMUNICATION, operation, key, start_seconds, end_seconds, moved)

    def _add(self, operation: Operation, seconds: float) -> None:
        if self._step is not None:
            times = self._step.operation_seconds
            times[operation] = times.get(operation, 0.0) + seconds

    def _span(
        self,
        stream: Stream,
        operation: Operation,
        key: SpanKey,
        start: float,
        end: float,
        moved: tuple[Sequence[int], Sequence[int]] = ((), ()),
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
