"""What no placement can change.

Shapes: L layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from wingspan.errors import InputError
from wingspan.placement.balanced import hottest_replica_bound
from wingspan.placement.objective import Objective
from wingspan.routing.load import checked_load, imbalance
from wingspan.specs.precision import wider


def check_memory(num_layers: int, slots_per_rank: int, expert_bytes: int, budget_bytes: float) -> None:
    """Raise `InputError`, naming the way out, where a rank's slots exceed its memory for experts."""
    needed = num_layers * slots_per_rank * expert_bytes
    if needed > budget_bytes:
        fits = int(budget_bytes // (num_layers * expert_bytes)) if expert_bytes else slots_per_rank
        mend = f"use {fits} slots per rank on more ranks" if fits else "one slot per layer needs more memory"
        raise InputError(
            f"{num_layers} layers x {slots_per_rank} slots x {expert_bytes / 1e6:.2f} MB = {needed / 1e9:.2f} GB of "
            f"experts per rank exceed the {budget_bytes / 1e9:.2f} GB given; {mend}"
        )


@dataclass(frozen=True)
class Limits:
    """Least possible rank imbalance (max / mean, mean over layers), here and with other means.

    Attributes:
        hottest_expert: tokens of the hottest expert over the mean expert's.
        reading: the mean expert's time to read its weights over that to compute its tokens.
        floor: with these ranks and slots.
        spare_ranks: number of further ranks of `floor_with_spare`: a node's, or an eighth of all if more.
        floor_with_spare: with that many further ranks.
        floor_with_two: with two slots per rank on the same ranks; equals `floor` where there are two already.
    """

    hottest_expert: float
    reading: float
    floor: float
    spare_ranks: int
    floor_with_spare: float
    floor_with_two: float


def limits(load_LE: ArrayLike, objective: Objective, slots_per_rank: int) -> Limits:
    """See `Limits`; loads as tokens per step of each (layer, expert)."""
    load = checked_load(load_LE)
    shape, gpu = objective.shape, objective.cluster.gpu
    computing = wider(shape.expert_weights, shape.activations)
    computing_seconds = 2 * shape.values * float(load.mean()) / gpu.sustained_flops(computing)
    reading_seconds = shape.expert_bytes / gpu.sustained_memory_bytes_per_second
    nodes_more = max(1, round(objective.nodes / 8))
    spare = nodes_more * objective.ranks_per_node

    def floor(ranks: int, slots: int) -> float:
        return float(hottest_replica_bound(load, ranks, slots).mean())

    return Limits(
        hottest_expert=imbalance(load),
        reading=reading_seconds / computing_seconds if computing_seconds else 0.0,
        floor=floor(objective.ranks, slots_per_rank),
        spare_ranks=spare,
        floor_with_spare=floor(objective.ranks + spare, slots_per_rank),
        floor_with_two=floor(objective.ranks, max(2, slots_per_rank)),
    )
