"""From what every rank recorded to one `StepReport` per phase, on rank 0.

Shapes: R ranks, X exchanges of a step, N steps.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wingspan.routing.load import imbalance
from wingspan.runtime.measuring.recorder import StepRecord
from wingspan.runtime.ranks.world import World
from wingspan.schedule.result import Operation, Span, StepReport
from wingspan.specs.placement import Placement

_EXCHANGES = (Operation.DISPATCH, Operation.COMBINE)

WAIT_NOTE = (
    "wait = the part of each exchange beyond the fastest rank's time in it: time spent on slower ranks, "
    "not on the transfer"
)


@dataclass(frozen=True)
class RankMeasurement:
    """What one rank hands to rank 0."""

    rank: int
    steps: list[StepRecord]
    load_LE: dict[str, NDArray[np.int64]]
    memory_bytes: dict[str, int]
    peak_memory_bytes: int
    spans: list[Span]
    steps_ended: Mapping[str, int] = field(default_factory=dict)
    """Steps that ended in each phase; `steps` holds only the latest."""


def peak_memory_bytes() -> int:
    """The most memory this process ever held (its resident set, shared library pages included)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def step_report(
    ranks: Sequence[RankMeasurement],
    phase: Literal["prefill", "decode"],
    placement: Placement,
    world: World,
    schedule: str,
    source: Literal["measured", "paced"] = "measured",
) -> StepReport | None:
    """The mean step of one phase; None where the run had no such step."""
    steps_R = [[s for s in rank.steps if s.phase == phase] for rank in ranks]
    count = len(steps_R[0])
    if not count:
        return None
    times = _operation_seconds(steps_R)
    seconds_RN = np.array([[s.seconds for s in steps] for steps in steps_R])
    tokens = sum(s.tokens for steps in steps_R for s in steps)
    load_LE = sum((rank.load_LE[phase] for rank in ranks), np.zeros((1, 1), dtype=np.int64))
    slowest = int(_own_seconds(times).argmax())
    sent_RR = np.array([[s.sent_R for s in steps] for steps in steps_R]).mean(axis=1)
    exposed_R = _exposed_seconds(steps_R)
    within, across = _by_distance(sent_RR, world)
    from_within, from_across = _by_distance(sent_RR.T, world)
    return StepReport(
        source=source,
        phase=phase,
        ranks=world.size,
        ranks_per_node=world.ranks_per_node,
        experts_per_rank=placement.slots_per_rank,
        schedule=schedule,
        tokens=round(tokens / count),
        step_seconds=float(seconds_RN.max(axis=0).mean()),
        steps=count,
        tokens_per_second=tokens / float(seconds_RN.max(axis=0).sum()),
        operation_seconds={op: seconds_R.tolist() for op, seconds_R in times.items()},
        exposed_communication_seconds=exposed_R.tolist(),
        sent_within_node_bytes=within,
        sent_across_nodes_bytes=across,
        received_within_node_bytes=from_within,
        received_across_nodes_bytes=from_across,
        load_tokens=load_LE.tolist(),
        imbalance=imbalance(load_LE),
        memory_bytes={part: [r.memory_bytes[part] for r in ranks] for part in ranks[0].memory_bytes},
        peak_memory_bytes=[r.peak_memory_bytes for r in ranks],
        slowest_rank=slowest,
        slowest_reason=_reason(times, slowest),
        notes=[
            WAIT_NOTE,
            "load_tokens are sums over all steps of the phase; all other figures are per step",
            *_latest_note(count, ranks[0].steps_ended.get(phase, count)),
        ],
    )


def _latest_note(kept: int, ended: int) -> list[str]:
    return [f"figures per step are of the latest {kept:,} of {ended:,} steps"] if ended > kept else []


def _operation_seconds(steps_R: list[list[StepRecord]]) -> dict[Operation, NDArray[np.float64]]:
    """Mean seconds per step of every operation, per rank; waiting split off from the exchanges."""
    times = {
        op: np.array([np.mean([s.operation_seconds.get(op, 0.0) for s in steps]) for steps in steps_R])
        for op in Operation
    }
    for op, wait_R in _wait_seconds(steps_R).items():
        times[op] = np.maximum(0.0, times[op] - wait_R)
        times[Operation.WAIT] = times[Operation.WAIT] + wait_R
    total_R = np.array([np.mean([s.seconds for s in steps]) for steps in steps_R])
    computing_R = sum(times[op] for op in Operation if op not in (*_EXCHANGES, Operation.WAIT))
    times[Operation.OTHER] = np.maximum(0.0, total_R - computing_R - _exposed_seconds(steps_R))
    return {op: seconds_R for op, seconds_R in times.items() if seconds_R.any() or op in _EXCHANGES} | {
        Operation.WAIT: times[Operation.WAIT]
    }


def _exposed_seconds(steps_R: list[list[StepRecord]]) -> NDArray[np.float64]:
    """Per rank the seconds of a mean step in which it was held up by exchanges."""
    return np.array(
        [np.mean([sum(seconds for _, seconds in s.exposed_seconds) for s in steps]) for steps in steps_R]
    )


def _wait_seconds(steps_R: list[list[StepRecord]]) -> dict[Operation, NDArray[np.float64]]:
    """Per rank the excess over the fastest rank, summed over a step's dispatches and its combines."""
    excess = {op: np.zeros(len(steps_R)) for op in _EXCHANGES}
    # Step by step, as not all have equally many exchanges.
    for step_R in zip(*steps_R, strict=True):
        exposed_RX = np.array([[seconds for _, seconds in s.exposed_seconds] for s in step_R])
        excess_XR = (exposed_RX - exposed_RX.min(axis=0)).T
        # All ranks meet in the same exchanges in the same order, so one rank's record names them for all.
        for (op, _), excess_R in zip(step_R[0].exposed_seconds, excess_XR, strict=True):
            excess[op] += excess_R / len(steps_R[0])
    return excess


def _by_distance(bytes_RR: NDArray[np.float64], world: World) -> tuple[list[int], list[int]]:
    """Row sums to other ranks of the own node, and to other nodes."""
    ranks = np.arange(world.size)
    node_R = ranks // world.ranks_per_node
    same = node_R[:, None] == node_R[None, :]
    within_R = (bytes_RR * (same & (ranks[:, None] != ranks[None, :]))).sum(axis=1)
    across_R = (bytes_RR * ~same).sum(axis=1)
    return [round(b) for b in within_R.tolist()], [round(b) for b in across_R.tolist()]


def _own_seconds(times: dict[Operation, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Time each rank did not spend on others: the one with the most made the others wait."""
    return sum(seconds for op, seconds in times.items() if op != Operation.WAIT) + np.zeros(1)


def _reason(times: dict[Operation, NDArray[np.float64]], rank: int) -> str:
    excess = {op: float(s[rank] - s.mean()) for op, s in times.items() if op != Operation.WAIT}
    worst = max(excess, key=lambda op: excess[op])
    if excess[worst] <= 0:
        return "all ranks alike"
    return f"{excess[worst] * 1e3:.2f} ms more than the mean rank in {worst.value}"
