"""A deployment's memory per rank, whether it fits, and how much work would.

Shapes: R ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.memory import Bytes, Holding, memory_bytes
from wingspan.deployment import Deployment, Options
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import ScheduleKind, parse_schedule
from wingspan.specs.memory import MemoryPart
from wingspan.specs.placement import Placement

Array = NDArray[np.float64]

_MOST_SEQUENCES = 1 << 20


@dataclass(frozen=True, eq=False)
class MemoryUse:
    """Bytes of each part on each rank, against what a GPU has."""

    parts: dict[MemoryPart, Array]
    capacity_bytes: float

    @property
    def total_R(self) -> Array:
        """Bytes of all parts on each rank."""
        return np.asarray(np.sum([*self.parts.values()], axis=0))

    @property
    def fits(self) -> bool:
        """Whether the fullest rank has room."""
        return bool(self.total_R.max() <= self.capacity_bytes)

    @property
    def breaking_part(self) -> MemoryPart | None:
        """The part with which the fullest rank's memory first overflows, in the order of `parts`; None if it fits."""
        if self.fits:
            return None
        rank = int(self.total_R.argmax())
        filled = 0.0
        for name, size_R in self.parts.items():
            filled += size_R[rank]
            if filled > self.capacity_bytes:
                return name
        return None


def memory_use(
    deployment: Deployment, placement: Placement | None = None, rows_R: Array | float | None = None
) -> MemoryUse:
    """What each rank holds.

    Args:
        deployment: model, work and options.
        placement: the deployment's, if it is at hand already.
        rows_R: rows that arrive in the fullest layer; default: evenly spread ones.

    Raises:
        InputError: the placement does not fit the model.
    """
    placement = deployment.build_placement() if placement is None else placement
    sizes = _sizes(deployment, placement, rows_R, None, None)
    ranks = (deployment.ranks,)
    parts_R = {name: np.broadcast_to(np.asarray(size, np.float64), ranks) for name, size in sizes.items()}
    return MemoryUse(parts_R, deployment.cluster.gpu.memory_bytes)


def largest_batch(
    deployment: Deployment,
    context: int | None = None,
    placement: Placement | None = None,
    rows_per_token_R: Array | None = None,
) -> int:
    """The most sequences per GPU that fit; 0 = not even one. In prefill, the most tokens per GPU.

    Args:
        deployment: model, work and options; its batch is not looked at.
        context: default: the workload's.
        placement: the deployment's, if it is at hand already.
        rows_per_token_R: rows that arrive in the fullest layer for each token of a GPU; default: evenly spread ones.
    """
    placement = deployment.build_placement() if placement is None else placement

    def held(count: int) -> float:
        tried = deployment.workload.tried_per_sequence
        rows_R = None if rows_per_token_R is None else rows_per_token_R * count * tried
        return _fullest(_sizes(deployment, placement, rows_R, count, context))

    return _largest(held, deployment.cluster.gpu.memory_bytes, _MOST_SEQUENCES)


def longest_context(deployment: Deployment) -> int:
    """The most tokens of context that fit with the workload's batch; 0 = not even one."""
    placement = deployment.build_placement()

    def held(tokens: int) -> float:
        return _fullest(_sizes(deployment, placement, None, None, tokens))

    return _largest(held, deployment.cluster.gpu.memory_bytes, 1 << 24)


def _largest(held: Callable[[int], float], capacity_bytes: float, most: int) -> int:
    """The largest count up to `most` that is held in `capacity_bytes`; 0 where not even one is.

    Each further one takes about as much as those before, so the next to try lies where the line through the last
    two fills the memory; every other time it is the middle, should the line mislead.
    """
    first = held(1)
    if first > capacity_bytes:
        return 0
    low, low_bytes, high, straight = 1, first, most + 1, True
    count = 2
    while high - low > 1:
        size = held(count)
        slope = max((size - low_bytes) / (count - low), 1e-9)
        guess = count + (capacity_bytes - size) / slope
        if size <= capacity_bytes:
            low, low_bytes = count, size
        else:
            high = count
        count = (low + high) // 2
        if straight and guess < high:
            count = min(max(int(guess), low + 1), high - 1)
        straight = not straight or high - low < _NEAR
    return low


_NEAR = 8
"""So close to the answer the line through the last two is right."""


def reserve_bytes(cluster: Cluster, options: Options) -> float:
    """What no formula counts: as measured on this cluster, or else a share of its memory."""
    if cluster.process_bytes is not None:
        return cluster.process_bytes
    return options.reserve_share * cluster.gpu.memory_bytes


def _fullest_share(deployment: Deployment) -> float:
    """Tokens of the fullest ranks that share attention as a multiple of the mean ones'."""
    shares_R = deployment.workload.rank_shares(deployment.ranks)
    return float(deployment.of_attention_group(shares_R).max() / deployment.options.attention_ranks)


def _fullest(sizes: dict[MemoryPart, Bytes]) -> float:
    return float(np.max(sum(sizes.values())))


def _sizes(
    deployment: Deployment,
    placement: Placement,
    rows_R: Array | float | None,
    batch: int | None,
    context: int | None,
) -> dict[MemoryPart, Bytes]:
    """Bytes of each part, (R,) or one number where all ranks are alike, with other work where it is said."""
    model, workload, options = deployment.model, deployment.workload, deployment.options
    tried = workload.tried_per_sequence
    shared = float(deployment.of_attention_group(deployment.tokens_R).max())
    tokens = float(batch * _fullest_share(deployment) * tried if batch else shared / options.attention_ranks)
    mean_context = float(context or workload.context.mean_tokens)
    if workload.phase == "decode":
        sequences, cached = tokens / tried, mean_context + tried
    else:
        cached = mean_context if workload.total_sequences and not batch else min(mean_context, tokens)
        sequences = tokens / cached
    cut = options.expert_tensor_parallel
    held_R = np.repeat(placement.held_R.astype(np.float64), cut)
    if rows_R is None or cut == deployment.ranks > 1:
        # What one group gathers once it computes once per expert.
        rows_R = tokens * cut * model.experts.per_token * held_R / max(held_R.mean(), 1e-9)
    kind, chunks = parse_schedule(options.schedule)
    holding = Holding(
        experts_R=held_R,
        slots_per_layer=placement.slots_per_rank,
        ranks=deployment.ranks,
        attention_ranks=options.attention_ranks,
        tokens=tokens,
        sequences=sequences,
        context=cached,
        rows_R=rows_R,
        dispatcher=deployment.dispatcher,
        expert_tensor_parallel=cut,
        replicated=deployment.replicated,
        parts=2 if kind is ScheduleKind.TWO_BATCH else chunks,
        logits=sequences * tried,
        mtp_layers=model.mtp_layers if workload.mtp_tokens else 0,
    )
    reserve = reserve_bytes(deployment.cluster, options)
    return memory_bytes(model, deployment.precisions, holding, reserve)
