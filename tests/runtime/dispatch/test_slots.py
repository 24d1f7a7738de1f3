import numpy as np
import torch

from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.ranks.world import World
from wingspan.specs.placement import EMPTY, Placement

CPU = torch.device("cpu")


def world(rank: int) -> World:
    return World(rank=rank, size=4, ranks_per_node=2, local_rank=rank % 2)


def test_local_slots_count_held_experts_only():
    placement = Placement(np.array([[[EMPTY, 1], [0, EMPTY], [2, EMPTY], [EMPTY, EMPTY]]]), 3)
    rank_TK, local_TK = SlotMap(placement, 0, world(0), CPU)(torch.tensor([[0, 1, 2]]))
    assert rank_TK.tolist() == [[1, 0, 2]]
    assert local_TK.tolist() == [[0, 0, 0]]


def test_a_replica_on_the_own_rank_then_the_own_node_is_preferred():
    # Expert 0 on ranks 1 and 2; nodes are {0, 1} and {2, 3}.
    placement = Placement(np.array([[[1], [0], [0], [2]]]), 3)
    picks = torch.zeros((6, 1), dtype=torch.int64)
    chosen = [SlotMap(placement, 0, world(r), CPU)(picks)[0].unique().tolist() for r in range(4)]
    assert chosen == [[1], [1], [2], [2]]


def test_far_replicas_share_the_load():
    placement = Placement(np.array([[[1], [2], [0], [0]]]), 3)
    picks = torch.zeros((10, 1), dtype=torch.int64)
    rank_TK, _ = SlotMap(placement, 0, world(0), CPU)(picks)
    assert torch.bincount(rank_TK.flatten(), minlength=4).tolist() == [0, 0, 5, 5]
