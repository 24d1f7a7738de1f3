"""The published EPLB rule: its README's example, its constraints, and what it does not promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.placement.eplb import (
    balanced_packing,
    eplb,
    eplb_global,
    eplb_hierarchical,
    twins,
    without_twins,
)
from wingspan.specs.placement import EMPTY

# https://github.com/deepseek-ai/EPLB, README: 12 experts, 16 slots, 4 groups, 2 nodes, 8 GPUs.
LOAD = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
PUBLISHED = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def test_the_published_example_comes_out_slot_by_slot():
    assert eplb(LOAD, 8, 2, num_nodes=2, num_groups=4).reshape(2, 16).tolist() == PUBLISHED


def test_without_groups_the_rule_is_global():
    assert np.array_equal(eplb(LOAD, 8, 2, num_nodes=2), eplb_global(LOAD, 8, 2))


def test_packing_by_hand():
    # 9 to pack 0, 5 to pack 1, 4 to pack 1 (5 < 9), 1 to the one with room.
    assert balanced_packing(np.array([1.0, 9, 5, 4]), 2).tolist() == [[1, 0], [2, 3]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), nodes=st.sampled_from([1, 2, 4]), slots=st.integers(2, 4))
def test_every_expert_is_placed_and_groups_stay_on_their_node(seed, nodes, slots):
    load = np.random.default_rng(seed).lognormal(0, 1, (2, 16))
    placed = eplb_hierarchical(load, 8, slots, nodes, num_groups=8)
    assert placed.shape == (2, 8, slots)
    for layer in placed:
        assert set(layer.ravel().tolist()) == set(range(16))
        node_of = {}
        for node, held in enumerate(layer.reshape(nodes, -1)):
            for expert in held.tolist():
                assert node_of.setdefault(expert // 2, node) == node


def test_the_rule_puts_twins_on_a_rank_and_they_can_be_emptied():
    load = [[30.0, 1, 1, 1]]
    placed = eplb_global(load, 2, 4)
    assert twins(placed) > 0
    placement = without_twins(placed, 4)
    assert twins(placement.slots_LRS) == 0
    assert (placement.slots_LRS == EMPTY).sum() == twins(placed)


def test_what_does_not_divide_is_named():
    with pytest.raises(InputError, match="12 experts must divide into 5 groups"):
        eplb_hierarchical(LOAD, 8, 2, 2, 5)
    with pytest.raises(InputError, match="do not fit 4 ranks x 2 slots"):
        eplb_global(LOAD, 4, 2)
