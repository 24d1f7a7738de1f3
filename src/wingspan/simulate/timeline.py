"""Execute a schedule over (rank x stream): when each task begins and ends on each rank.

Shapes: N tasks, M of the communication stream, R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wingspan.schedule.result import Operation, Stream
from wingspan.schedule.schedule import Schedule
from wingspan.specs.kernels import ContentionKernel

Array = NDArray[np.float64]

_PASSES = 10
_CLOSE = 3e-4
"""Passes end once no task's end moves by more than this share of the step."""


@dataclass(frozen=True, eq=False)
class Lag:
    """How far a task keeps behind the one whose results it takes piece by piece: seconds of each rank, (R,).

    Args:
        first: from that one's beginning until its first piece is there.
        last: what the task still does once that one has ended.
    """

    first: Array
    last: Array


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each task of a schedule ran on each rank: (N, R)."""

    schedule: Schedule
    starts_NR: Array
    ends_NR: Array

    @property
    def step_seconds(self) -> float:
        """Until the last rank's last task ended."""
        return float(self.ends_NR.max())

    def numbers(self, stream: Stream) -> NDArray[np.int64]:
        """Which tasks a stream took, in its order."""
        return np.array([n for n, t in enumerate(self.schedule.tasks) if t.stream is stream], dtype=np.int64)

    def busy_seconds(self, operation: Operation) -> Array:
        """Time per rank in all tasks of one operation."""
        numbers = [n for n, t in enumerate(self.schedule.tasks) if t.operation is operation]
        return np.asarray((self.ends_NR[numbers] - self.starts_NR[numbers]).sum(axis=0))

    def hidden_seconds(self, operation: Operation) -> Array:
        """Time per rank in which it computes while tasks of one kind of transfer are under way."""
        tasks = self.schedule.tasks
        of_kind = [tasks[n].operation is operation for n in self.numbers(Stream.COMMUNICATION)]
        return np.asarray(self._hidden_MR[of_kind].sum(axis=0))

    @property
    def overlaps(self) -> bool:
        """Whether some rank computes while its rows travel."""
        return bool(self._hidden_MR.any())

    @cached_property
    def _hidden_MR(self) -> Array:
        """Per task of the communication stream, in its order, and rank: the time in which the rank computes beside."""
        starts, ends = self.starts_NR, self.ends_NR
        transfer, compute = self.numbers(Stream.COMMUNICATION), self.numbers(Stream.COMPUTE)
        return overlap_seconds(starts[transfer], ends[transfer], starts[compute], ends[compute])[0]


def execute(
    schedule: Schedule,
    seconds: Sequence[Array],
    groups: Sequence[int],
    contention: ContentionKernel,
    processors: Mapping[int, Array] | None = None,
    lags: Mapping[int, Lag] | None = None,
) -> Timeline:
    """Run the tasks in order.

    Args:
        schedule: tasks, streams and dependencies.
        seconds: duration of each task when it has the GPU for itself, (R,).
        groups: for each task, how many neighbouring ranks must begin it together (1 for computing).
        contention: how computing and communicating slow each other while both run on a rank.
        processors: of transfers, by their number, the part of their seconds (R,) in which they hold the processors:
            computing beside them stands still for as long, and nothing else is slowed.
        lags: of every task that is behind another, by its number.

    A task that runs beside one of the other stream does 1/slowdown of its work in that time. Since that moves
    ends, and ends move what runs beside what, passes are repeated until nothing moves.
    """
    base_NR = np.stack([np.asarray(s, dtype=np.float64) for s in seconds])
    lags = lags or {}
    starts, ends = _run(schedule, base_NR, groups, lags)
    streams = [t.stream for t in schedule.tasks]
    compute = np.array([n for n, s in enumerate(streams) if s is Stream.COMPUTE])
    transfer = np.array([n for n, s in enumerate(streams) if s is Stream.COMMUNICATION], dtype=np.int64)
    lost_compute_MR = np.full((len(transfer), base_NR.shape[1]), 1 - 1 / contention.compute_slowdown)
    lost_transfer_M1 = np.full((len(transfer), 1), 1 - 1 / contention.communication_slowdown)
    for place, number in enumerate(transfer.tolist()):
        if processors and number in processors:
            lasting_R = np.maximum(ends[number] - starts[number], 1e-300)
            lost_compute_MR[place] = np.minimum(processors[number] / lasting_R, 1.0)
            lost_transfer_M1[place] = 0.0
    if not len(transfer) or not (lost_compute_MR.any() or lost_transfer_M1.any()):
        return Timeline(schedule, starts, ends)
    groups_M = np.array([groups[n] for n in transfer])
    meetings = {group: transfer[groups_M == group] for group in set(groups_M.tolist())}
    for _ in range(_PASSES):
        beside_transfer, beside_compute = overlap_seconds(
            starts[transfer], ends[transfer], starts[compute], ends[compute], lost_compute_MR
        )
        if not beside_transfer.any():
            break
        duration_NR = base_NR.copy()
        beside_transfer *= lost_transfer_M1
        duration_NR[compute] += beside_compute
        duration_NR[transfer] += beside_transfer
        for group, meeting in meetings.items():
            duration_NR[meeting] = _together(duration_NR[meeting], group)
        before = ends
        starts, ends = _run(schedule, duration_NR, groups, lags)
        moved_NR = np.subtract(ends, before, out=before)
        if max(moved_NR.max(), -moved_NR.min()) <= _CLOSE * ends.max():
            break
    return Timeline(schedule, starts, ends)


def _run(
    schedule: Schedule, duration_NR: Array, groups: Sequence[int], lags: Mapping[int, Lag]
) -> tuple[Array, Array]:
    starts, ends = np.empty_like(duration_NR), np.empty_like(duration_NR)
    free: dict[Stream, Array] = {}
    nothing = np.zeros(duration_NR.shape[1])
    for n, task in enumerate(schedule.tasks):
        ready = free.get(task.stream, nothing)
        for earlier in task.after:
            ready = np.maximum(ready, ends[earlier])
        if task.behind is not None:
            ready = np.maximum(ready, starts[task.behind] + lags[n].first)
        starts[n] = ready if groups[n] == 1 else _together(ready, groups[n])
        free[task.stream] = np.add(starts[n], duration_NR[n], out=ends[n])
        if task.behind is not None:
            last = ends[task.behind] + lags[n].last
            np.maximum(ends[n], last if groups[n] == 1 else _together(last, groups[n]), out=ends[n])
    return starts, ends


def _together(values: Array, group: int) -> Array | float:
    """The greatest of each group of ranks along the last axis, for all of its ranks."""
    ranks = values.shape[-1]
    if group == ranks and values.ndim == 1:
        return float(values.max())
    grouped = values.reshape(*values.shape[:-1], ranks // group, group).max(axis=-1)
    return np.asarray(np.repeat(grouped, group, axis=-1))


def overlap_seconds(
    starts_AR: Array, ends_AR: Array, starts_BR: Array, ends_BR: Array, weight_AR: Array | None = None
) -> tuple[Array, Array]:
    """Per task of A and rank, the time in which a task of B runs beside it, and the other way round: (A, R), (B, R).

    Both are in the order of their streams. What B runs beside A counts by A's weight, where there is one.
    """
    first_start_B, last_end_B = starts_BR.min(axis=1), ends_BR.max(axis=1)
    low_A = np.searchsorted(np.maximum.accumulate(last_end_B), starts_AR.min(axis=1), side="right")
    high_A = np.searchsorted(np.maximum.accumulate(first_start_B), ends_AR.max(axis=1), side="left")
    beside_AR, beside_BR = np.zeros(starts_AR.shape), np.zeros(starts_BR.shape)
    for number, (low, high) in enumerate(zip(low_A.tolist(), high_A.tolist(), strict=True)):
        if low < high:
            together = np.minimum(ends_AR[number], ends_BR[low:high])
            together -= np.maximum(starts_AR[number], starts_BR[low:high])
            np.maximum(together, 0.0, out=together)
            together.sum(axis=0, out=beside_AR[number])
            if weight_AR is not None:
                together *= weight_AR[number]
            beside_BR[low:high] += together
    return beside_AR, beside_BR
