"""A server beside its simulation: what the same requests met in both, at several loads."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, median

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult
from wingspan.schedule.serving_result import Latencies


class StepFigures(FrozenResult):
    """The steps of one load."""

    step_seconds: float = Field(description="mean time from a step's begin to the next one's")
    decoding_sequences: float = Field(description="over all ranks, mean of the steps that decode")


class ComparedRound(FrozenResult):
    """The same requests, at the same times, predicted and measured."""

    others_share: float = Field(
        description="of this machine's processors, that other work took while the load was sent"
    )

    predicted: Latencies
    measured: Latencies
    replayed: Latencies = Field(
        description="simulated with each step as long as the server's of the same number: what is left of the error "
        "when step times are right"
    )
    predicted_steps: StepFigures
    measured_steps: StepFigures


class Compared(FrozenResult):
    """One figure, predicted and measured: of each the median over the rounds."""

    name: str
    unit: str
    predicted: float
    measured: float

    @property
    def error(self) -> float | None:
        """By which share the prediction is too high; None where nothing was measured."""
        return self.predicted / self.measured - 1 if self.measured else None


class ComparedLoad(FrozenResult):
    """One load, in every round."""

    requests_per_second: float
    share: float = Field(description="of the highest load")
    rounds: list[ComparedRound]

    @property
    def figures(self) -> list[Compared]:
        """What a reader compares."""
        return [self._figure(name, unit, of) for name, unit, of in _FIGURES] + [
            self._steps("step", "s", lambda steps: steps.step_seconds),
            self._steps("sequences that decode", "", lambda steps: steps.decoding_sequences),
        ]

    @property
    def replayed_error(self) -> float:
        """The largest error of a latency or throughput, in the median over rounds, with the steps' own times."""
        return max(
            abs(
                median(of(one.replayed) for one in self.rounds)
                / median(of(one.measured) for one in self.rounds)
                - 1
            )
            for _, _, of in _FIGURES
        )

    @property
    def others_share(self) -> float:
        """Share of this machine's processors that other work took, in the mean of the rounds."""
        return fmean(one.others_share for one in self.rounds)

    def _figure(self, name: str, unit: str, of: Callable[[Latencies], float]) -> Compared:
        return Compared(
            name=name,
            unit=unit,
            predicted=median(of(one.predicted) for one in self.rounds),
            measured=median(of(one.measured) for one in self.rounds),
        )

    def _steps(self, name: str, unit: str, of: Callable[[StepFigures], float]) -> Compared:
        return Compared(
            name=name,
            unit=unit,
            predicted=median(of(one.predicted_steps) for one in self.rounds),
            measured=median(of(one.measured_steps) for one in self.rounds),
        )


_FIGURES: tuple[tuple[str, str, Callable[[Latencies], float]], ...] = (
    ("time to first token, median", "s", lambda met: met.ttft_seconds.p50),
    ("time to first token, p90", "s", lambda met: met.ttft_seconds.p90),
    ("time per output token, median", "s", lambda met: met.tpot_seconds.p50),
    ("time per output token, p90", "s", lambda met: met.tpot_seconds.p90),
    ("output tokens/s", "", lambda met: met.output_tokens_per_second),
)


class ServingComparison(FrozenResult):
    """A server beside its simulation, lowest load first."""

    conditions: dict[str, str]
    highest_requests_per_second: float = Field(description="that the server answers with every place taken")
    http_seconds: float = Field(
        description="of an answer's first token: from the client to the engine and back; median of the rounds"
    )
    measured_steps: int = Field(description="whose times the prediction is made from, in all rounds")
    others_share: float = Field(
        description="of this machine's processors, that other work took while these were measured"
    )
    loads: list[ComparedLoad]
    notes: list[str] = Field(default=[])
