"""From what the router picked to where it is computed: one layer's logical experts to (rank, local slot).

Shapes: T tokens, K experts per token, E logical experts, C candidate slots of an expert, R ranks, S slots per rank.
"""

from __future__ import annotations

import numpy as np
import torch

from wingspan.runtime.ranks.world import World
from wingspan.specs.placement import EMPTY, Placement
from wingspan.traffic.rule import NEAREST_FIRST, ReplicaRule


class SlotMap:
    """For each logical expert of one MoE layer the slots that this home rank may use, by the replica rule.

    Among several the tokens take turns, each rank beginning elsewhere, so that the replicas share the load.
    """

    def __init__(
        self,
        placement: Placement,
        layer: int,
        world: World,
        device: torch.device,
        rule: ReplicaRule = NEAREST_FIRST,
    ) -> None:
        slots_RS = placement.slots_LRS[layer]
        node_R = np.array([world.node_of(rank) for rank in range(world.size)])
        found = rule.candidates(slots_RS, placement.num_experts, node_R, np.array([world.rank]))
        slot_EC, choices_E = found.slot_HEC[0], found.choices_HE[0]
        rank_EC, place_EC = np.divmod(slot_EC, placement.slots_per_rank)
        # A rank holds weights for its filled slots only, in order.
        held_RS = slots_RS != EMPTY
        local_RS = np.cumsum(held_RS, axis=1) - held_RS
        self._rank_EC = torch.tensor(rank_EC, dtype=torch.int64, device=device)
        self._local_EC = torch.tensor(local_RS[rank_EC, place_EC], dtype=torch.int64, device=device)
        self._rank_E, self._local_E = self._rank_EC[:, 0], self._local_EC[:, 0]
        self._choices_E = torch.tensor(choices_E, dtype=torch.int64, device=device)
        self._has_replicas = bool((choices_E > 1).any())
        self._turn = world.rank

    def __call__(self, experts_TK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The destination rank and the slot there of every (token, expert): two int64 tensors (T, K)."""
        if not self._has_replicas:
            return self._rank_E[experts_TK], self._local_E[experts_TK]
        turn_T = torch.arange(experts_TK.shape[0], device=experts_TK.device) + self._turn
        choice_TK = turn_T[:, None] % self._choices_E[experts_TK]
        return self._rank_EC[experts_TK, choice_TK], self._local_EC[experts_TK, choice_TK]
