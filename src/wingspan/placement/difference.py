"""What changes from one placement to another: the experts that each rank must fetch.

Shapes: L layers, R ranks, S and Q slots per rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.specs.placement import EMPTY, Placement


@dataclass(frozen=True, eq=False)
class Difference:
    """Experts that a rank holds after and not before; one that only changes its slot on a rank does not move.

    Args:
        fetched_LR: experts per (layer, rank).
        expert_bytes: weights of one expert.
    """

    fetched_LR: NDArray[np.int64]
    expert_bytes: int

    @property
    def experts(self) -> int:
        """Experts fetched, over all layers and ranks."""
        return int(self.fetched_LR.sum())

    @property
    def total_bytes(self) -> int:
        """Bytes fetched, over all layers and ranks."""
        return self.experts * self.expert_bytes

    @property
    def bytes_R(self) -> NDArray[np.int64]:
        """Bytes that each rank fetches: (ranks,)."""
        result: NDArray[np.int64] = self.fetched_LR.sum(axis=0) * self.expert_bytes
        return result


def difference(old: Placement, new: Placement, expert_bytes: int = 0) -> Difference:
    """Count what moves from `old` to `new`, which may differ in slots per rank and in ranks (a new one fetches all).

    Raises:
        InputError: the two are of different models.
    """
    shapes = [(p.num_layers, p.num_experts) for p in (old, new)]
    if shapes[0] != shapes[1]:
        raise InputError(
            "placements of different models: {} layers of {} experts, then {} layers of {}".format(
                *shapes[0], *shapes[1]
            )
        )
    held_LRQ = np.full((new.num_layers, new.num_ranks, old.slots_per_rank), EMPTY, dtype=np.int64)
    common = min(old.num_ranks, new.num_ranks)
    held_LRQ[:, :common] = old.slots_LRS[:, :common]
    return Difference(fetched(held_LRQ, new.slots_LRS), expert_bytes)


def fetched(old_LRQ: NDArray[np.int64], new_LRS: NDArray[np.int64]) -> NDArray[np.int64]:
    """Experts per (layer, rank) that are in `new_LRS` and not in `old_LRQ`, slots as in `Placement`."""
    there = (new_LRS[..., :, None] == old_LRQ[..., None, :]).any(axis=3)
    count: NDArray[np.int64] = (~there & (new_LRS != EMPTY)).sum(axis=2)
    return count
