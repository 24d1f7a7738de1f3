from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.balance.placements import random_placement
from wingspan.balance.moves import changed_layers, kept_slots, moves, with_layer
from wingspan.specs.placement import Placement


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 3),
    experts=st.integers(1, 6),
    per_node=st.sampled_from([1, 2, 4]),
)
def test_what_is_kept_and_what_comes_make_the_new_placement(seed, slots, experts, per_node):
    rng = np.random.default_rng(seed)
    ranks = 4
    experts = min(experts, ranks * slots)
    old, new = (random_placement(rng, 2, experts, ranks, slots) for _ in range(2))
    for layer in range(2):
        arrivals = {(m.destination, m.destination_slot): m for m in moves(old, new, layer, per_node)}
        for rank in range(ranks):
            held = []
            for slot, kept in enumerate(kept_slots(old, new, layer, rank)):
                if kept is not None:
                    assert (rank, slot) not in arrivals
                    held.append(old.experts_on(layer, rank)[kept])
                    continue
                move = arrivals.pop((rank, slot))
                assert old.experts_on(layer, move.source)[move.source_slot] == move.expert
                near = [r for r in range(ranks) if r // per_node == rank // per_node]
                if any(move.expert in old.experts_on(layer, r) for r in near):
                    assert move.source in near
                held.append(move.expert)
            assert held == new.experts_on(layer, rank)
        assert not arrivals


def test_senders_take_turns():
    old = Placement(np.array([[[0], [0], [1], [2]]]), 3)
    new = Placement(np.array([[[1], [2], [0], [0]]]), 3)
    sources = {m.destination: m.source for m in moves(old, new, 0, 4)}
    assert sources == {0: 2, 1: 3, 2: 0, 3: 1}


def test_one_layer_of_another_placement():
    rng = np.random.default_rng(3)
    old, new = (random_placement(rng, 3, 4, 4, 1) for _ in range(2))
    assert changed_layers(old, old) == []
    mixed = with_layer(old, new, 1)
    assert changed_layers(old, mixed) == [1]
    assert changed_layers(mixed, new) == [0, 2]
