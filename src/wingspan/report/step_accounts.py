"""A step's figures as accounts that add up: time of the mean rank, bytes, memory; for one report or for two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COMMUNICATION

_HIDDEN = "hidden behind compute"
_WAITING = "waiting for slower ranks"
SUMS = ("step", "all parts")
"""What the entries above them add up to."""


@dataclass(frozen=True)
class Entry:
    """One figure of two reports; None where a report does not have it."""

    name: str
    unit: str
    predicted: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Predicted over measured; None where it says nothing."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured

    @property
    def error(self) -> float | None:
        """The prediction's, as a share of what was measured; None where it says nothing."""
        return None if self.ratio is None else self.ratio - 1


def time_account(report: StepReport) -> dict[str, float]:
    """What the mean rank spends on each operation: the seconds add up to the step.

    Computing first, then transfers as far as nothing is computed meanwhile, and waiting for slower ranks.
    """
    mean = {op: _mean(seconds) for op, seconds in report.spent_seconds.items()}
    ordered = sorted(mean, key=lambda op: (op is Operation.WAIT, op in COMMUNICATION))
    return {_name(op): mean[op] for op in ordered}


def hidden_account(report: StepReport) -> dict[str, float]:
    """Seconds of each transfer of the mean rank that are beside compute, and so no part of the step's sum."""
    means = {op: _mean(seconds) for op, seconds in report.hidden_seconds.items()}
    return {f"{op.value.replace('_', ' ')}, {_HIDDEN}": seconds for op, seconds in means.items()}


def comparison(predicted: StepReport, measured: StepReport) -> dict[str, list[Entry]]:
    """The figures of two reports side by side, by what they are of; the entries above a sum add up to it."""
    both = (predicted, measured)

    def entries(accounts: Iterable[Mapping[str, float]], unit: str) -> list[Entry]:
        one, two = accounts
        return [Entry(name, unit, one.get(name), two.get(name)) for name in {**one, **two}]

    def entry(name: str, unit: str, of: str) -> Entry:
        return Entry(name, unit, *(getattr(report, of) for report in both))

    return {
        "time of the mean rank": [
            *entries(map(time_account, both), "s"),
            entry("step", "s", "step_seconds"),
            Entry("exposed communication", "s", *(report.overhead * report.step_seconds for report in both)),
            *(e for e in entries(map(hidden_account, both), "s") if e.predicted or e.measured),
        ],
        "bytes that all ranks send in the step": entries(map(_sent, both), "bytes"),
        "memory of the mean rank": entries(map(_memory, both), "bytes"),
        "load": [
            entry("tokens in the step", "", "tokens"),
            Entry("tokens of the fullest expert", "", *map(_fullest, both)),
            entry("fullest expert / mean", "", "imbalance"),
            entry("tokens per second", "", "tokens_per_second"),
        ],
    }


def _sent(report: StepReport) -> dict[str, float]:
    return {
        "within nodes": sum(report.sent_within_node_bytes),
        "across nodes": sum(report.sent_across_nodes_bytes),
    }


def _memory(report: StepReport) -> dict[str, float]:
    parts = {part.value: _mean(sizes) for part, sizes in report.memory_bytes.items() if any(sizes)}
    return {**parts, "all parts": _mean(report.peak_memory_bytes)}


def _fullest(report: StepReport) -> float:
    return max((tokens for layer in report.load_tokens for tokens in layer), default=0.0)


def _name(operation: Operation) -> str:
    if operation is Operation.WAIT:
        return _WAITING
    return operation.value.replace("_", " ") + (" (transfer)" if operation in COMMUNICATION else "")


def _mean(values: Iterable[float]) -> float:
    numbers = [*values]
    return sum(numbers) / len(numbers) if numbers else 0.0
