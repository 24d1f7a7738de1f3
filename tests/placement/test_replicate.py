"""Replica counts and items: hand examples, conservation, and the least possible hottest slot."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.placement.replicate import Items, replica_counts
from wingspan.specs.placement import EMPTY

loads = st.lists(st.integers(0, 50), min_size=1, max_size=5)


def test_slots_go_to_the_most_load_per_slot():
    assert replica_counts([[6, 2, 1], [1, 1, 8]], 5, 4).tolist() == [[3, 1, 1], [1, 1, 3]]


def test_beyond_one_per_node_replicas_come_in_whole_rounds():
    assert replica_counts([[6, 2, 1]], 5, 4, nodes=2).tolist() == [[2, 2, 1]]
    assert replica_counts([[90, 2, 1]], 6, 4, nodes=2).tolist() == [[4, 1, 1]]
    assert replica_counts([[90, 2, 1]], 7, 4, nodes=2).tolist() == [[4, 2, 1]]


def test_no_expert_gets_more_replicas_than_allowed_and_the_rest_stays_empty():
    counts = replica_counts([[9, 1]], 6, 2)
    assert counts.tolist() == [[2, 2]]
    items = Items.of([[9, 1]], counts, 6)
    assert items.expert_LP.tolist() == [[0, 0, 1, 1, EMPTY, EMPTY]]
    assert items.load_LP.tolist() == [[4.5, 4.5, 0.5, 0.5, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(load=loads, extra=st.integers(0, 4), most=st.integers(1, 4))
def test_no_other_counts_make_the_hottest_slot_cooler(load, extra, most):
    slots = len(load) + extra
    counts = replica_counts([load], slots, most)[0]
    hottest = (np.array(load) / counts).max()
    best = min(
        (np.array(load) / np.array(other)).max()
        for other in product(range(1, most + 1), repeat=len(load))
        if sum(other) <= slots
    )
    assert counts.sum() <= slots
    assert hottest == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(load=loads, extra=st.integers(0, 6))
def test_items_hold_all_load_heaviest_first(load, extra):
    slots = len(load) + extra
    items = Items.of([load], replica_counts([load], slots, 3), slots)
    assert items.load_LP.sum() == pytest.approx(sum(load))
    assert (np.diff(items.load_LP[0]) <= 0).all()
    held = items.expert_LP[0][items.expert_LP[0] != EMPTY]
    assert set(held.tolist()) == set(range(len(load)))
    assert (np.diff(np.flatnonzero(np.diff(held))) > 0).all()


@pytest.mark.parametrize(
    ("load", "slots", "says"),
    [
        ([[1, 2, 3]], 2, "3 experts per layer do not fit 2 slots"),
        ([1, 2, 3], 3, r"expected \(layers, experts\)"),
        ([[1, -2]], 2, "finite number of tokens, 0 or more"),
        ([[1, float("nan")]], 2, "finite number"),
    ],
)
def test_bad_input_is_named(load, slots, says):
    with pytest.raises(InputError, match=says):
        replica_counts(load, slots, 2)


@settings(max_examples=100, deadline=None)
@given(load=loads, extra=st.integers(0, 12), most=st.integers(1, 9), nodes=st.integers(1, 3))
def test_counts_are_those_of_the_rule_step_by_step(load, extra, most, nodes):
    """However many steps are taken at once: one slot, or a round of them, to the expert with most load per slot."""
    counts, left, closed = [1] * len(load), extra, set()
    while left and len(closed) < len(load):
        hottest = max(
            (e for e in range(len(load)) if e not in closed), key=lambda e: (load[e] / counts[e], -e)
        )
        step = 1 if counts[hottest] < nodes else nodes
        if step <= left and counts[hottest] + step <= most:
            counts[hottest], left = counts[hottest] + step, left - step
        else:
            closed.add(hottest)
    assert replica_counts([load], len(load) + extra, most, nodes).tolist() == [counts]
