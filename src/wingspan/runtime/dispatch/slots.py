"""From what the router picked to where it is computed: one layer's logical experts to (rank, local slot).

Shapes: T tokens, K experts per token, E logical experts, C candidate slots of an expert.
"""

from __future__ import annotations

import numpy as np
import torch

from wingspan.placement.placement import EMPTY, Placement
from wingspan.runtime.ranks.world import World


class SlotMap:
    """For each logical expert of one MoE layer the slots that this home rank may use, the near ones only.

    Where an expert has replicas: its own rank's if there is one, else those of its own node, else all; among
    several the tokens take turns, each rank beginning elsewhere, so that the replicas share the load.
    """

    def __init__(self, placement: Placement, layer: int, world: World, device: torch.device) -> None:
        candidates = [_near(_slots_of(placement, layer, e), world) for e in range(placement.num_experts)]
        widest = max(len(c) for c in candidates)
        # Shorter lists repeat, so that every column of the table is a valid choice.
        table = [[c[i % len(c)] for i in range(widest)] for c in candidates]
        table_EC2 = torch.tensor(table, dtype=torch.int64, device=device)
        self._rank_EC, self._local_EC = table_EC2.unbind(-1)
        self._rank_E, self._local_E = self._rank_EC[:, 0], self._local_EC[:, 0]
        self._choices_E = torch.tensor([len(c) for c in candidates], dtype=torch.int64, device=device)
        self._has_replicas = widest > 1
        self._turn = world.rank

    def __call__(self, experts_TK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The destination rank and the slot there of every (token, expert): two int64 tensors (T, K)."""
        if not self._has_replicas:
            return self._rank_E[experts_TK], self._local_E[experts_TK]
        turn_T = torch.arange(experts_TK.shape[0], device=experts_TK.device) + self._turn
        choice_TK = turn_T[:, None] % self._choices_E[experts_TK]
        return self._rank_EC[experts_TK, choice_TK], self._local_EC[experts_TK, choice_TK]


def _slots_of(placement: Placement, layer: int, expert: int) -> list[tuple[int, int]]:
    """(rank, index among that rank's held experts) of every replica."""
    held_RS = placement.slots_LRS[layer]
    ranks, slots = np.nonzero(held_RS == expert)
    return [
        (int(r), int((held_RS[r, :s] != EMPTY).sum()))
        for r, s in zip(ranks.tolist(), slots.tolist(), strict=True)
    ]


def _near(slots: list[tuple[int, int]], world: World) -> list[tuple[int, int]]:
    own_rank = [s for s in slots if s[0] == world.rank]
    own_node = [s for s in slots if world.node_of(s[0]) == world.node]
    return own_rank or own_node or slots
