"""Where the time of steps went on every rank: computing, exchanges as far as they held it up, and slower ranks.

Shapes: R ranks, N steps, X exchanges of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.runtime.measuring.recorder import StepRecord
from wingspan.schedule.result import Operation

Seconds = NDArray[np.float64]

EXCHANGES = (Operation.DISPATCH, Operation.COMBINE)


@dataclass(frozen=True)
class RankTimes:
    """One rank's times in steps that all ranks took together, small enough to be sent to rank 0 at any time.

    Args:
        seconds_N: of each step.
        busy_seconds: by operation, over all steps; of an exchange from start to end.
        exposed_X: by how many seconds each exchange held the rank up, in the order in which all ranks meet in them.
        kinds_X: what each exchange is, as its place in `EXCHANGES`.
    """

    seconds_N: Seconds
    busy_seconds: dict[Operation, float]
    exposed_X: Seconds
    kinds_X: NDArray[np.int8]


def rank_times(steps: Sequence[StepRecord]) -> RankTimes:
    """One rank's times in these steps."""
    busy: dict[Operation, float] = {}
    for step in steps:
        for operation, seconds in step.operation_seconds.items():
            busy[operation] = busy.get(operation, 0.0) + seconds
    exchanges = [exchange for step in steps for exchange in step.exchanges]
    return RankTimes(
        np.array([step.seconds for step in steps]),
        busy,
        np.array([exchange.exposed_seconds for exchange in exchanges]),
        np.array([EXCHANGES.index(exchange.operation) for exchange in exchanges], dtype=np.int8),
    )


def group_times(ranks: Sequence[RankTimes]) -> tuple[dict[Operation, Seconds], dict[Operation, Seconds]]:
    """Seconds per operation and rank over all steps, as in a `StepReport`; and of the exchanges what is hidden.

    What a rank waits for others (the part of each exchange beyond the fastest rank's time in it, and the time until the
    slowest rank ends the step) is `Operation.WAIT`. Less what is hidden, the times of each rank add up to the steps'.
    """
    own_R = np.array([rank.seconds_N.sum() for rank in ranks])
    step_N = np.array([rank.seconds_N for rank in ranks]).max(axis=0)
    times = {op: np.array([rank.busy_seconds.get(op, 0.0) for rank in ranks]) for op in Operation}
    exposed_RX = np.array([rank.exposed_X for rank in ranks])
    waited_RX = exposed_RX - exposed_RX.min(axis=0)
    exposed, waited = (
        {op: of_RX[:, ranks[0].kinds_X == kind].sum(axis=1) for kind, op in enumerate(EXCHANGES)}
        for of_RX in (exposed_RX, waited_RX)
    )
    hidden = {op: times[op] - exposed[op] for op in EXCHANGES}
    computing_R = sum((times[op] for op in Operation if op not in EXCHANGES), np.zeros(len(ranks)))
    for op in EXCHANGES:
        times[op] = times[op] - waited[op]
    times[Operation.OTHER] = np.maximum(0.0, own_R - computing_R - sum(exposed.values()))
    times[Operation.WAIT] = sum(waited.values(), step_N.sum() - own_R)
    kept = (*EXCHANGES, Operation.WAIT)
    return {op: seconds_R for op, seconds_R in times.items() if seconds_R.any() or op in kept}, hidden
