"""Which EP size, batch, sharding and schedule is best on a given number of GPUs: predict them and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wingspan.deployment import Deployment, PlacementSpec, ScheduleKind
from wingspan.errors import InputError
from wingspan.schedule.result import StepReport
from wingspan.simulate.memory import largest_batch
from wingspan.simulate.step import simulate


@dataclass(frozen=True)
class Choice:
    """One deployment with its prediction; `gpus / ranks` copies of it run side by side."""

    deployment: Deployment
    report: StepReport
    gpus: int

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Throughput per GPU."""
        return self.report.tokens_per_second / self.report.ranks

    @property
    def peak_bytes(self) -> float:
        """Memory of the fullest rank."""
        return max(self.report.peak_memory_bytes)

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs."""
        return self.tokens_per_second_per_gpu * self.gpus


def ep_sizes(experts: int, gpus: int, gpus_per_node: int) -> list[int]:
    """EP sizes to try: powers of two and whole groups of GPUs up to one expert per GPU, that divide `gpus`."""
    most = min(experts, gpus)
    sizes = [size for size in range(1, most + 1) if gpus % size == 0]
    whole = [size for size in sizes if size <= gpus_per_node or size % gpus_per_node == 0]
    return [size for size in whole if experts % size == 0] or whole


def best_of_each_ep(
    template: Deployment, gpus: int, *, fixed_batch: bool, longest_step_seconds: float | None = None
) -> list[Choice]:
    """For each EP size the fastest deployment that fits, in tokens per second per GPU; smallest EP first.

    Args:
        template: model, hardware, work and options; its placement, and with `fixed_batch` False its batch, are
            replaced. Attention is cut over 1, 2, 4 or 8 GPUs, whichever is fastest.
        gpus: all GPUs; each EP group takes as many as it needs.
        fixed_batch: keep the workload's tokens per GPU.
        longest_step_seconds: leave out what takes longer (in decode: the time per output token).

    Raises:
        InputError: the GPUs do not fill whole nodes.
    """
    cluster = template.cluster.with_gpus(gpus)
    experts = template.model.experts.count
    found = []
    for ranks in ep_sizes(experts, gpus, cluster.gpus_per_node):
        placement = PlacementSpec(ranks=ranks, experts_per_rank=-(-experts // ranks))
        start = template.model_copy(update={"cluster": cluster, "placement": placement})
        best = _best(start, gpus, fixed_batch, longest_step_seconds)
        if best is not None:
            found.append(best)
    return found


def _best(start: Deployment, gpus: int, fixed_batch: bool, longest: float | None) -> Choice | None:
    """The fastest of all shardings and batches in sequence, then of all schedules."""
    shardings = [_with(start, "options", attention_ranks=group) for group in _groups(start)]
    choices = [
        _choice(_with(sharded, "workload", tokens_per_gpu=batch), gpus)
        for sharded in shardings
        for batch in _batches(sharded, fixed_batch, longest)
    ]
    best = _fastest(choices, longest)
    if best is None:
        return None
    schedules = (ScheduleKind.TWO_BATCH, ScheduleKind.CHUNKS)
    others = [_choice(_with(best.deployment, "options", schedule=kind), gpus) for kind in schedules]
    return _fastest([best, *[c for c in others if _fits(c)]], longest)


def _groups(start: Deployment) -> list[int]:
    most = min(start.ranks, start.cluster.gpus_per_node)
    heads = start.model.attention.heads
    return [
        g for g in (1, 2, 4, 8) if g <= most and start.ranks % g == 0 and most % g == 0 and heads % g == 0
    ]


def _batches(deployment: Deployment, fixed: bool, longest: float | None) -> list[int]:
    """The asked one; or the largest, a half and a quarter of it; or the largest whose step is no longer."""
    largest = largest_batch(deployment)
    asked = deployment.workload.tokens_per_gpu
    if fixed:
        return [asked] if asked <= largest else []
    most = min(largest, _MOST_DECODE if deployment.workload.phase == "decode" else _MOST_PREFILL)
    if longest is not None and most:
        most = _largest_within(deployment, most, longest)
    return sorted({max(1, most // part) for part in (1, 2, 4)}) if most else []


def _largest_within(deployment: Deployment, most: int, longest: float) -> int:
    """The largest batch up to `most` whose step takes no longer, by bisection: more tokens take more time."""
    fits, breaks = 0, most + 1
    while breaks - fits > 1:
        batch = (fits + breaks) // 2
        step = simulate(_with(deployment, "workload", tokens_per_gpu=batch)).step_seconds
        fits, breaks = (batch, breaks) if step <= longest else (fits, batch)
    return fits


_MOST_DECODE = 1024
_MOST_PREFILL = 32768
"""Largest batches tried: beyond these more tokens gain nothing, because every product is bound by arithmetic."""


def _choice(deployment: Deployment, gpus: int) -> Choice:
    return Choice(deployment, simulate(deployment), gpus)


def _fits(choice: Choice) -> bool:
    return max(choice.report.peak_memory_bytes) <= choice.deployment.cluster.gpu.memory_bytes


def _fastest(choices: list[Choice], longest: float | None) -> Choice | None:
    allowed = [c for c in choices if longest is None or c.report.step_seconds <= longest]
    return max(allowed, key=lambda c: c.tokens_per_second_per_gpu, default=None)


def _with(deployment: Deployment, part: str, **changes: Any) -> Deployment:
    if part not in ("options", "workload"):
        raise InputError(f"{part} is not a part of a deployment that a search changes")
    return deployment.model_copy(update={part: getattr(deployment, part).model_copy(update=changes)})
