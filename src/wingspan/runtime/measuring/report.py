"""From what every rank recorded to one `StepReport` per phase, on rank 0.

Shapes: R ranks, N steps.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.routing.load import imbalance
from wingspan.runtime.measuring.recorder import StepRecord
from wingspan.runtime.measuring.times import EXCHANGES, group_times, rank_times
from wingspan.runtime.ranks.world import World
from wingspan.schedule.result import Operation, Span, StepReport
from wingspan.schedule.slowest import slowest
from wingspan.specs.memory import MemoryPart
from wingspan.specs.placement import Placement

Array = NDArray[np.float64]

_EXPOSED = (*EXCHANGES, Operation.WAIT)

WAIT_NOTE = (
    "wait = the part of each exchange beyond the fastest rank's time in it, and the time until the slowest rank's end: "
    "spent on slower ranks, not on the transfer"
)
MEMORY_NOTE = (
    "memory: `other` is the most that the process held less the parts that are counted: interpreter, libraries, "
    "allocator, activations, and buffers as other steps needed them"
)


@dataclass(frozen=True)
class CardMemory:
    """A GPU's memory: the most that tensors took, the most that torch reserved for them, and all that is in use now
    (contexts of CUDA, NCCL's buffers, other processes)."""

    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int

    @classmethod
    def now(cls, device: torch.device) -> CardMemory | None:
        """This process's GPU's; None where it computes on the CPU."""
        if device.type != "cuda":
            return None
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        return cls(
            torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total_bytes - free_bytes
        )


@dataclass(frozen=True)
class RankMeasurement:
    """What one rank hands to rank 0."""

    rank: int
    steps: list[StepRecord]
    load_LE: dict[str, NDArray[np.int64]]
    """Tokens of each phase, summed over all its steps."""
    memory_bytes: dict[MemoryPart, int]
    """The parts that are counted; the rest of the peak is `MemoryPart.OTHER`."""
    peak_memory_bytes: int
    """The most that the process held; on a GPU, of its memory."""
    spans: list[Span]
    steps_ended: Mapping[str, int] = field(default_factory=dict)
    """Steps that ended in each phase; `steps` holds only the latest."""
    buffer_bytes: Mapping[str, int] = field(default_factory=dict)
    """What a step of each phase needs of the exchanges' buffers; they stay as large as the largest step made them."""
    clock: str = ""
    """Ranks with equal ones read the same clock: those of one machine, since it was started."""
    host_peak_bytes: int = 0
    """The most of the CPU's memory that the process held, where the rank has a GPU."""
    card: CardMemory | None = None
    """The rank's GPU's, if it has one."""


def peak_memory_bytes() -> int:
    """The most of the CPU's memory that this process ever held (resident set, shared library pages included)."""
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
    ended = ranks[0].steps_ended.get(phase, count)
    seconds_RN = np.array([[s.seconds for s in steps] for steps in steps_R])
    step_N = seconds_RN.max(axis=0)
    times, hidden = (
        {op: seconds_R / count for op, seconds_R in of_steps.items()}
        for of_steps in group_times([rank_times(steps) for steps in steps_R])
    )
    spent = {op: seconds_R - hidden.get(op, 0.0) for op, seconds_R in times.items()}
    slowest_rank, _, reason = slowest(spent)
    tokens = sum(s.tokens for steps in steps_R for s in steps)
    load_LE = sum((rank.load_LE[phase] for rank in ranks), np.zeros((1, 1), dtype=np.int64)) / ended
    sent_RR = np.array([[s.sent_R for s in steps] for steps in steps_R]).mean(axis=1)
    within, across = _by_distance(sent_RR, world)
    from_within, from_across = _by_distance(sent_RR.T, world)
    memory = _memory(ranks, phase)
    return StepReport(
        source=source,
        phase=phase,
        ranks=world.size,
        ranks_per_node=world.ranks_per_node,
        experts_per_rank=placement.slots_per_rank,
        schedule=schedule,
        tokens=round(tokens / count),
        step_seconds=float(step_N.mean()),
        steps=count,
        tokens_per_second=tokens / float(step_N.sum()),
        operation_seconds={op: seconds_R.tolist() for op, seconds_R in times.items()},
        hidden_seconds={op: seconds_R.tolist() for op, seconds_R in hidden.items()},
        exposed_communication_seconds=np.sum([spent[op] for op in _EXPOSED], axis=0).tolist(),
        sent_within_node_bytes=within,
        sent_across_nodes_bytes=across,
        received_within_node_bytes=from_within,
        received_across_nodes_bytes=from_across,
        load_tokens=load_LE.tolist(),
        imbalance=imbalance(load_LE),
        memory_bytes=memory,
        peak_memory_bytes=[sum(sizes) for sizes in zip(*memory.values(), strict=True)],
        slowest_rank=slowest_rank,
        slowest_reason=reason,
        notes=[WAIT_NOTE, MEMORY_NOTE, *_latest_note(count, ended), *_card_note(ranks)],
    )


def _memory(ranks: Sequence[RankMeasurement], phase: str) -> dict[MemoryPart, list[int]]:
    """Every part on each rank: what was counted, and the rest of the peak."""
    counted = {part: [rank.memory_bytes[part] for rank in ranks] for part in ranks[0].memory_bytes}
    counted[MemoryPart.BUFFERS] = [rank.buffer_bytes.get(phase, 0) for rank in ranks]
    # What was allocated and never touched is no part of the process's peak.
    rest = [
        max(0, rank.peak_memory_bytes - sum(sizes))
        for rank, *sizes in zip(ranks, *counted.values(), strict=True)
    ]
    return {**counted, MemoryPart.OTHER: rest}


def _card_note(ranks: Sequence[RankMeasurement]) -> list[str]:
    cards = [rank.card for rank in ranks if rank.card is not None]
    if not cards:
        return []
    allocated, reserved, used = (
        max(getattr(card, f"{kind}_bytes") for card in cards) / 1e9
        for kind in ("allocated", "reserved", "used")
    )
    host = max(rank.host_peak_bytes for rank in ranks) / 1e9
    return [
        f"GPU memory, the fullest: {allocated:.2f} GB in tensors, {reserved:.2f} GB reserved by torch, {used:.2f} GB "
        f"in use with CUDA, NCCL and others; of the host's memory a rank held {host:.2f} GB at most"
    ]


def _latest_note(kept: int, ended: int) -> list[str]:
    return (
        [f"figures are of the latest {kept:,} of {ended:,} steps; load_tokens of all"] if ended > kept else []
    )


def _by_distance(bytes_RR: NDArray[np.float64], world: World) -> tuple[list[int], list[int]]:
    """Row sums to other ranks of the own node, and to other nodes."""
    ranks = np.arange(world.size)
    node_R = ranks // world.ranks_per_node
    same = node_R[:, None] == node_R[None, :]
    within_R = (bytes_RR * (same & (ranks[:, None] != ranks[None, :]))).sum(axis=1)
    across_R = (bytes_RR * ~same).sum(axis=1)
    return [round(b) for b in within_R.tolist()], [round(b) for b in across_R.tolist()]
