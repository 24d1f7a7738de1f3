"""What all ranks did since somebody last looked, brought together while they go on.

Shapes: R ranks, L MoE layers, E logical experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.measuring.times import RankTimes, Seconds, group_times, rank_times
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class GroupFigures:
    """Steps that the ranks took together; prefill and decode count apart.

    Args:
        steps: how many.
        seconds: that they took, each as long as its slowest rank.
        spent_R: per operation and rank what adds up to that: computing, what of each kind of exchange nothing hid,
            waiting for slower ranks, and `other`, which belongs to no operation.
        sent_RR: bytes of rows from rank to rank.
        load_LE: tokens that chose each logical expert.
        rows_LR: rows that each rank's experts computed.
    """

    steps: int
    seconds: float
    spent_R: Mapping[Operation, Seconds]
    sent_RR: Counts
    load_LE: Counts
    rows_LR: Counts

    def __add__(self, later: GroupFigures) -> GroupFigures:
        """Both stretches of steps together."""
        nothing_R = np.zeros(len(self.sent_RR))
        return GroupFigures(
            self.steps + later.steps,
            self.seconds + later.seconds,
            {
                op: self.spent_R.get(op, nothing_R) + later.spent_R.get(op, nothing_R)
                for op in Operation
                if op in self.spent_R or op in later.spent_R
            },
            self.sent_RR + later.sent_RR,
            self.load_LE + later.load_LE,
            self.rows_LR + later.rows_LR,
        )


@dataclass(frozen=True)
class _RankFigures:
    """One rank's part."""

    times: RankTimes
    sent_R: Counts
    load_LE: Counts
    rows_L: Counts


class Looks:
    """Remembers on each rank how far the last look reached. Nothing is kept or counted for it between looks.

    Args:
        recorder: of this rank's steps. Of more steps than it keeps, times and bytes are those of the latest.
        transport: of the group.
    """

    def __init__(self, recorder: Recorder, transport: Transport) -> None:
        self._recorder = recorder
        self._transport = transport
        self._ended: dict[str, int] = {}
        self._load_LE: Counts = np.zeros((1, 1), dtype=np.int64)
        self._rows_L: Counts = np.zeros(1, dtype=np.int64)

    def take(self, loads: Mapping[str, torch.Tensor], rows: Sequence[int]) -> GroupFigures | None:
        """All since the last call, on rank 0; None elsewhere. Collective, between steps.

        Args:
            loads: this rank's tokens by (layer, expert) since it began, in each phase.
            rows: that its experts of each layer computed since then.
        """
        steps = self._recorder.since(self._ended)
        self._ended = dict(self._recorder.ended)
        rows_L = np.array(rows, dtype=np.int64)
        load_LE = sum(
            (load.cpu().numpy() for load in loads.values()), np.zeros((len(rows), 1), dtype=np.int64)
        )
        sent_R = np.array([step.sent_R for step in steps], dtype=np.int64).reshape(
            len(steps), self._transport.world.size
        )
        mine = _RankFigures(
            rank_times(steps), sent_R.sum(axis=0), load_LE - self._load_LE, rows_L - self._rows_L
        )
        self._load_LE, self._rows_L = load_LE, rows_L
        every = self._transport.gather(mine)
        return None if every is None else _together(cast("list[_RankFigures]", every))


def _together(ranks: Sequence[_RankFigures]) -> GroupFigures:
    times, hidden = group_times([rank.times for rank in ranks])
    return GroupFigures(
        len(ranks[0].times.seconds_N),
        float(np.max([rank.times.seconds_N for rank in ranks], axis=0).sum()),
        {op: seconds_R - hidden.get(op, 0.0) for op, seconds_R in times.items()},
        np.array([rank.sent_R for rank in ranks]),
        reduce(np.add, [rank.load_LE for rank in ranks]),
        np.array([rank.rows_L for rank in ranks]).T,
    )
