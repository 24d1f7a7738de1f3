"""From what every rank recorded to the run's timeline, on rank 0.

Shapes: R ranks, X exchanges of a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wingspan.runtime.measuring.recorder import HeldUp, StepRecord
from wingspan.runtime.measuring.report import RankMeasurement
from wingspan.schedule.result import Operation, Span, StepSpan, Stream
from wingspan.schedule.run_timeline import RunTimeline


def run_timeline(ranks: Sequence[RankMeasurement]) -> RunTimeline:
    """Spans and steps of all ranks, waiting for slower ones among the spans; empty where no span was kept."""
    if not any(rank.spans for rank in ranks):
        return RunTimeline()
    ranks = [_on_the_clock_of(ranks[0], rank) for rank in ranks]
    spans = [span for rank in ranks for span in rank.spans]
    waits = [span for steps in zip(*(rank.steps for rank in ranks), strict=True) for span in _waits(steps)]
    return RunTimeline([*spans, *waits], [span for rank in ranks for span in _steps(rank)])


def _on_the_clock_of(first: RankMeasurement, rank: RankMeasurement) -> RankMeasurement:
    """As that rank's clock would have it: all ranks end a step together, as they share what came of it."""
    if rank.clock == first.clock:
        return rank
    ours, theirs = (
        np.array([step.start_seconds + step.seconds for step in each.steps]) for each in (first, rank)
    )
    later = float(np.median(ours - theirs))
    steps = [
        replace(
            step,
            start_seconds=step.start_seconds + later,
            exchanges=[
                replace(each, held=tuple((start + later, end + later) for start, end in each.held))
                for each in step.exchanges
            ],
        )
        for step in rank.steps
    ]
    spans = [
        span.model_copy(
            update={"start_seconds": span.start_seconds + later, "end_seconds": span.end_seconds + later}
        )
        for span in rank.spans
    ]
    return replace(rank, steps=steps, spans=spans)


def _steps(measured: RankMeasurement) -> Iterator[StepSpan]:
    numbers: Counter[str] = Counter()
    for record in measured.steps:
        numbers[record.phase] += 1
        phase: Any = record.phase
        yield StepSpan(
            rank=measured.rank,
            phase=phase,
            number=numbers[record.phase],
            tokens=record.tokens,
            start_seconds=record.start_seconds,
            end_seconds=record.start_seconds + record.seconds,
        )


def _waits(step_R: Sequence[StepRecord]) -> Iterator[Span]:
    """In each exchange of one step, what held a rank up beyond the fastest rank's: at its beginning."""
    exposed_RX = np.array([[each.exposed_seconds for each in step.exchanges] for step in step_R])
    waited_RX = exposed_RX - exposed_RX.min(axis=0)
    for rank, (step, waited_X) in enumerate(zip(step_R, waited_RX.tolist(), strict=True)):
        for exchange, waited in zip(step.exchanges, waited_X, strict=True):
            yield from _first(exchange, rank, waited)


def _first(exchange: HeldUp, rank: int, seconds: float) -> Iterator[Span]:
    """The first so many seconds of what the exchange held the rank up."""
    for start, end in exchange.held:
        length = min(seconds, end - start)
        if length <= 0:
            continue
        seconds -= length
        yield Span(
            rank=rank,
            stream=Stream.COMPUTE,
            operation=Operation.WAIT,
            start_seconds=start,
            end_seconds=start + length,
            layer=exchange.key.layer,
            micro_batch=exchange.key.micro_batch,
            chunk=exchange.key.chunk,
        )
