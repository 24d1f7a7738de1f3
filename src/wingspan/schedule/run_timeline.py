"""The timeline of a run, predicted or measured: what every rank did, and the steps in which it did it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wingspan.schedule.result import Span, StepSpan


@dataclass(frozen=True)
class RunTimeline:
    """Spans of some ranks, and the steps that they lie in; a prediction has one step, a run many."""

    spans: Sequence[Span] = ()
    steps: Sequence[StepSpan] = ()

    def step_seconds(self, phase: str) -> dict[int, float]:
        """How long each step of a phase took the rank that took longest, by the step's number."""
        longest: dict[int, float] = {}
        for step in self.steps:
            if step.phase == phase:
                seconds = step.end_seconds - step.start_seconds
                longest[step.number] = max(seconds, longest.get(step.number, 0.0))
        return dict(sorted(longest.items()))

    def median_step(self, phase: str) -> int | None:
        """The number of the phase's step of median length, the earlier of two; None where it has none."""
        seconds = self.step_seconds(phase)
        ordered = sorted(seconds, key=lambda number: (seconds[number], number))
        return ordered[(len(ordered) - 1) // 2] if ordered else None

    def only(self, phase: str, number: int) -> RunTimeline:
        """One step alone."""
        steps = [step for step in self.steps if (step.phase, step.number) == (phase, number)]
        window = {step.rank: (step.start_seconds, step.end_seconds) for step in steps}
        inside = [
            span
            for span in self.spans
            if span.rank in window
            and window[span.rank][0] <= span.start_seconds
            and span.end_seconds <= window[span.rank][1]
        ]
        return RunTimeline(inside, steps)

    @property
    def ended_seconds(self) -> float | None:
        """When the last rank ended its last step; None where there is none."""
        return max((step.end_seconds for step in self.steps), default=None)

    def of_ranks(self, ranks: Collection[int]) -> RunTimeline:
        """Some ranks alone."""
        return RunTimeline(
            [span for span in self.spans if span.rank in ranks],
            [step for step in self.steps if step.rank in ranks],
        )
