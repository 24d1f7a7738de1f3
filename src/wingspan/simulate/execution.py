"""Which schedule and dispatcher a run should use: predict the candidates and take the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from wingspan.deployment import Deployment
from wingspan.simulate.step import simulate
from wingspan.specs.execution import DispatcherKind, ScheduleKind

SCHEDULES = ("sequential", "chunks:2", "chunks:4", "two-batch")
"""Those that are tried, the plainest first: of equal ones it is taken."""


_LEAST_GAIN = 0.03
"""A predicted gain below this share is within what the runtime itself costs: the plain order is kept."""


@dataclass(frozen=True)
class Candidate:
    """One way to execute a step, and the seconds it is predicted to take."""

    schedule: str
    dispatcher: DispatcherKind
    seconds: float


def candidates(deployment: Deployment, dispatchers: Sequence[DispatcherKind]) -> list[Candidate]:
    """Every schedule with every dispatcher, fastest first.

    Two micro-batches need two sequences; with one they are left out.
    """
    alone = deployment.workload.sequences_per_gpu < 2
    found = []
    for dispatcher, schedule in product(dispatchers, SCHEDULES):
        if alone and schedule == ScheduleKind.TWO_BATCH:
            continue
        options = deployment.options.model_copy(update={"schedule": schedule, "dispatcher": dispatcher})
        report = simulate(deployment.model_copy(update={"options": options}))
        found.append(Candidate(schedule, dispatcher, report.step_seconds))
    return sorted(found, key=lambda c: c.seconds)


def best_execution(
    phases: Mapping[str, tuple[Deployment, int]], dispatchers: Sequence[DispatcherKind]
) -> dict[str, list[Candidate]]:
    """For a run of several phases: each phase's candidates with the dispatcher that is best over all of them.

    Args:
        phases: per phase its step, and how many of them the run has.
        dispatchers: which may be used; one serves all phases.

    Returns:
        Per phase its candidates, fastest first, all with the same dispatcher.
    """
    found = {name: candidates(deployment, dispatchers) for name, (deployment, _) in phases.items()}

    def total_seconds(dispatcher: DispatcherKind) -> float:
        return sum(
            steps * next(c.seconds for c in found[name] if c.dispatcher is dispatcher)
            for name, (_, steps) in phases.items()
        )

    best = min(dispatchers, key=total_seconds)
    return {name: [c for c in ways if c.dispatcher is best] for name, ways in found.items()}


def pick(ways: Sequence[Candidate]) -> Candidate:
    """The fastest of one phase's candidates, but the sequential one where that is nearly as fast."""
    fastest = min(ways, key=lambda way: way.seconds)
    plain = next(way for way in ways if way.schedule == ScheduleKind.SEQUENTIAL)
    return plain if plain.seconds * (1 - _LEAST_GAIN) <= fastest.seconds else fastest
