"""Load-only packing: constraints under any loads, the bound, brute force on tiny cases, quality against EPLB."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.placement.balanced import balanced, hottest_replica_bound
from wingspan.placement.eplb import eplb_global, twins, without_twins
from wingspan.routing.load import imbalance_per_layer
from wingspan.specs.placement import EMPTY, Placement

CASES = Path(__file__).parents[1] / "cases"


def rank_load(slots_LRS: np.ndarray, load_LE: np.ndarray) -> np.ndarray:
    """Load of each rank, an expert's shared evenly by its slots; (layers, ranks)."""
    result = np.zeros(slots_LRS.shape[:2])
    for layer, rank, slot in np.argwhere(slots_LRS != EMPTY):
        expert = slots_LRS[layer, rank, slot]
        result[layer, rank] += load_LE[layer, expert] / (slots_LRS[layer] == expert).sum()
    return result


@st.composite
def problems(draw):
    layers, experts, ranks = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 6))
    slots = -(-experts // ranks) + draw(st.integers(0, 2))
    seed, spread = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 1.0, 3.0]))
    load = np.random.default_rng(seed).lognormal(0, spread, (layers, experts)).round(3)
    load[load < draw(st.sampled_from([0.0, 0.7]))] = 0
    return load, ranks, slots


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_any_loads_give_a_valid_placement_that_uses_every_slot_it_can(problem):
    """A slot is left empty only where the published rule wastes as many on twins, and is the more even for it."""
    load, ranks, slots = problem
    placement = balanced(load, ranks, slots)  # Placement checks experts and twins
    held_L = (placement.slots_LRS != EMPTY).reshape(len(load), -1).sum(axis=1)
    rule = without_twins(eplb_global(load, ranks, slots), load.shape[1])
    of_rule_L = (placement.slots_LRS == rule.slots_LRS).all(axis=(1, 2))
    assert ((held_L == min(ranks * slots, load.shape[1] * ranks)) | of_rule_L).all()
    assert rank_load(placement.slots_LRS, load).sum() == pytest.approx(load.sum())


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_no_layer_is_less_even_than_by_the_published_rule(problem):
    """With its twins emptied, as a server would use them."""
    load, ranks, slots = problem
    rule = without_twins(eplb_global(load, ranks, slots), load.shape[1])
    ours, theirs = (
        imbalance_per_layer(rank_load(placement.slots_LRS, load))
        for placement in (balanced(load, ranks, slots), rule)
    )
    assert (ours <= theirs + 1e-9).all()


def test_the_example_of_the_published_rule_is_as_even_as_by_the_rule():
    """2 layers of 12 experts, 16 slots on 8 ranks (the README of github.com/deepseek-ai/EPLB), twins counted too."""
    load = np.array(json.loads((CASES / "loads/eplb_2_layers_12_experts.json").read_text()), float)
    rule = eplb_global(load, 8, 2)
    ours = imbalance_per_layer(rank_load(balanced(load, 8, 2).slots_LRS, load))
    assert (ours <= imbalance_per_layer(rank_load(rule, load)) + 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_no_packing_beats_the_bound(problem):
    """The bound is of placements that fill all slots; a layer with an empty one may be more even."""
    load, ranks, slots = problem
    placed = balanced(load, ranks, slots).slots_LRS
    full = (placed != EMPTY).all(axis=(1, 2))
    reached = imbalance_per_layer(rank_load(placed, load))
    assert (reached >= hottest_replica_bound(load, ranks, slots) - 1e-9)[full].all()


@settings(max_examples=40, deadline=None)
@given(load=st.lists(st.integers(1, 30), min_size=6, max_size=6))
def test_bound_and_packing_against_every_packing(load):
    """6 experts on 3 ranks x 2 slots: all 15 pairings."""
    row = np.array([load], dtype=float)
    least = min(
        np.array(load)[list(order)].reshape(3, 2).sum(axis=1).max() for order in permutations(range(6))
    ) / (sum(load) / 3)
    reached = imbalance_per_layer(rank_load(balanced(row, 3, 2).slots_LRS, row))[0]
    # With two slots per rank the bound is exact, and heaviest with lightest reaches it.
    assert hottest_replica_bound(row, 3, 2)[0] == pytest.approx(least)
    assert reached == pytest.approx(least)


def test_bound_by_hand():
    # One slot per rank: the hottest expert alone; a spare rank halves it.
    assert hottest_replica_bound([[6, 1, 1]], 3, 1).tolist() == [6 / (8 / 3)]
    assert hottest_replica_bound([[6, 1, 1]], 4, 1).tolist() == [3 / 2]


def test_even_loads_and_one_rank():
    assert balanced([[1, 1, 1, 1]], 1, 4) == Placement(np.array([[[0, 1, 2, 3]]]), 4)
    assert hottest_replica_bound([[0, 0]], 2, 1).tolist() == [1.0]


@pytest.mark.parametrize(("ranks", "at_most"), [(32, 1.001), (72, 1.006)])
def test_quality_under_log_normal_loads(ranks, at_most):
    load = np.random.default_rng(3).lognormal(0, 1, (8, 256))
    ours = balanced(load, ranks, 288 // ranks).slots_LRS
    rule = eplb_global(load, ranks, 288 // ranks)
    reached, rules = (imbalance_per_layer(rank_load(s, load)).mean() for s in (ours, rule))
    assert reached <= at_most < rules
    assert twins(ours) == 0


def test_a_whole_model_is_packed_more_evenly_than_by_the_rule():
    """58 layers of 256 experts on 32 ranks of 9 slots; in the mean, and no layer is worse."""
    load = np.random.default_rng(3).lognormal(0, 1, (58, 256))
    ours, rules = (
        imbalance_per_layer(rank_load(slots, load))
        for slots in (balanced(load, 32, 9).slots_LRS, eplb_global(load, 32, 9))
    )
    assert (ours <= rules + 1e-9).all()
    assert ours.mean() <= 1.001 < rules.mean()
