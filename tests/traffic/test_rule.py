"""One rule, three views: for one home rank (the runtime's), for every token (counting), in the mean (expecting)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.placement.balanced import balanced
from wingspan.specs.placement import EMPTY
from wingspan.traffic.rule import NEAREST_FIRST


def slots(seed: int, ranks: int, experts: int, slots_per_rank: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return balanced(rng.lognormal(0, 2, (1, experts)), ranks, slots_per_rank).slots_LRS


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2, 4]), st.integers(2, 3), st.integers(3, 8))
def test_candidates_are_the_own_ranks_else_the_own_nodes_else_all(seed, per_node, slots_per_rank, experts):
    slots_RS = slots(seed, 8, experts, slots_per_rank)[0]
    ranks = np.arange(8)
    found = NEAREST_FIRST.candidates(slots_RS, experts, ranks // per_node, ranks)
    for home in range(8):
        for expert in range(experts):
            where = np.flatnonzero(slots_RS == expert).tolist()
            own = [x for x in where if x // slots_per_rank == home]
            near = [x for x in where if x // slots_per_rank // per_node == home // per_node]
            chosen = found.slot_HEC[home, expert, : found.choices_HE[home, expert]].tolist()
            assert chosen == (own or near or where)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(3, 8))
def test_parts_are_the_candidates_in_the_mean(seed, per_node, slots_per_rank, experts):
    slots_LRS = slots(seed, 8, experts, slots_per_rank)
    slots_RS, slots_LX = slots_LRS[0], slots_LRS.reshape(1, -1)
    ranks = np.arange(8)
    found = NEAREST_FIRST.candidates(slots_RS, experts, ranks // per_node, ranks)
    taken_HX = np.zeros((8, slots_LX.shape[1]))
    for home in range(8):
        for expert in range(experts):
            choices = int(found.choices_HE[home, expert])
            taken_HX[home, found.slot_HEC[home, expert, :choices]] = 1 / choices
    parts = NEAREST_FIRST.parts(slots_LX, experts, 8 // per_node)
    of_domain_GX = taken_HX.reshape(8 // per_node, per_node, -1).mean(axis=1)
    domain_X = np.arange(slots_LX.shape[1]) // (per_node * slots_per_rank)
    beyond_GX = np.where(slots_LX == EMPTY, 0, parts.elsewhere_LQE[0][:, slots_LX[0]])
    predicted_GX = np.where(domain_X == np.arange(len(of_domain_GX))[:, None], parts.near_LX, beyond_GX)
    assert np.allclose(predicted_GX, of_domain_GX)
    own_X = taken_HX[np.arange(slots_LX.shape[1]) // slots_per_rank, np.arange(slots_LX.shape[1])]
    assert np.allclose(parts.of_own_rank_LX[0], np.where(slots_LX[0] == EMPTY, 0, own_X))


@pytest.mark.parametrize("per_node", [1, 2, 4])
def test_counting_takes_the_replica_that_the_runtime_takes(per_node):
    torch = pytest.importorskip("torch")
    from wingspan.runtime.dispatch.slots import SlotMap
    from wingspan.runtime.ranks.world import World

    rng = np.random.default_rng(per_node)
    placement = balanced(rng.lognormal(0, 2, (1, 6)), 8, 2)
    picks = rng.random((30, 6)).argsort(axis=1)[:, :3]
    ranks = np.arange(8)
    found = NEAREST_FIRST.candidates(placement.slots_LRS[0], 6, ranks // per_node, ranks)
    for rank in range(8):
        world = World(rank=rank, size=8, ranks_per_node=per_node, local_rank=rank % per_node)
        theirs = SlotMap(placement, 0, world, torch.device("cpu"))(torch.tensor(picks))[0].numpy()
        ours = found.choose(np.full(30, rank), np.arange(30) + rank, picks) // 2
        assert np.array_equal(ours, theirs)
