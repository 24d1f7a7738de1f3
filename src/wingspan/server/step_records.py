"""Every step of a server that is being measured: what its ranks computed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from wingspan.runtime.generation.ledger import StepResult
from wingspan.schedule.step_load import StepLoad
from wingspan.server.answers import Answer
from wingspan.server.step_loop import StepLoop
from wingspan.server.watching import Watcher


@dataclass(frozen=True)
class ServedStep:
    """A step.

    Args:
        load: what the ranks computed.
        begun_seconds, ended_seconds: of `perf_counter`; tokens are given out after its end.
        is_last: nobody was left to be answered, so the next step waited for a call.
    """

    load: StepLoad
    begun_seconds: float
    ended_seconds: float
    is_last: bool


class StepRecorder(Watcher):
    """Keeps all steps, and how long each answer's first token took from its arrival at the server."""

    def __init__(self) -> None:
        self.steps: list[ServedStep] = []
        self.first_token_seconds: list[float] = []
        self._engine: StepLoop | None = None

    def watch(self, engine: StepLoop) -> None:
        """Read from this engine whether anybody is left."""
        self._engine = engine

    def stepped(self, result: StepResult, seconds: float) -> None:
        """Keep a step."""
        now, engine = perf_counter(), self._engine
        if result.load is not None and engine is not None:
            is_last = not engine.llm.unfinished and not engine.waiting
            self.steps.append(ServedStep(result.load, now - seconds, now, is_last))

    def token(self, answer: Answer, now: float) -> None:
        """Time a first token."""
        if answer.first_token_seconds is None:
            self.first_token_seconds.append(now - answer.arrived_seconds)
