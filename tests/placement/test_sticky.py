"""Renaming: the contents stay the same sets, and no other naming moves less."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.placement.difference import fetched
from wingspan.placement.simple import random
from wingspan.placement.sticky import name_nodes, name_ranks


def shuffled_ranks(slots_LRS, seed: int):
    return slots_LRS[:, np.random.default_rng(seed).permutation(slots_LRS.shape[1])]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), slots=st.sampled_from([1, 2]))
def test_ranks_are_named_to_move_least(seed, slots):
    present = random(2, 4 * slots, 4, slots, seed=seed).slots_LRS
    new = random(2, 4 * slots, 4, slots, seed=seed + 1).slots_LRS
    named = name_ranks(new, present, ranks_per_node=4)
    least = sum(
        min(
            int(fetched(present[n : n + 1], new[n : n + 1, list(order)]).sum())
            for order in permutations(range(4))
        )
        for n in range(2)
    )
    assert fetched(present, named).sum() == least
    for layer in range(2):
        sets = [sorted(frozenset(r) for r in s[layer].tolist()) for s in (new, named)]
        assert sorted(map(sorted, sets[0])) == sorted(map(sorted, sets[1]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_same_plan_under_other_names_moves_nothing_and_keeps_its_slots(seed):
    present = random(2, 24, 8, 3, seed=seed).slots_LRS
    turned = np.roll(shuffled_ranks(present, seed)[:, :, ::-1], 1, axis=2)
    assert np.array_equal(name_ranks(turned, present, ranks_per_node=8), present)


def test_nodes_go_where_their_experts_are_worth_most():
    slots = np.array([[[0], [1], [2], [3]]])
    worth = np.zeros((1, 4, 2))
    worth[0, [0, 1], 1] = 5
    assert name_nodes(slots, worth)[0, :, 0].tolist() == [2, 3, 0, 1]
