"""Counting tokens through a placement: a slow oracle, hand examples, conservation; and the score built on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.placement.examples import random_trace, topology
from wingspan.errors import InputError
from wingspan.placement.balanced import balanced
from wingspan.placement.exact import count
from wingspan.placement.placement import EMPTY, Placement
from wingspan.placement.score import score
from wingspan.placement.simple import linear
from wingspan.routing.statistics import expert_load
from wingspan.routing.trace import RoutingTrace


def oracle(placement: Placement, trace: RoutingTrace, cluster):
    """Token by token, in plain Python, as the runtime's slot map and dispatchers do."""
    size, per_node = placement.slots_per_rank, cluster.ranks_per_node
    slot_tokens = np.zeros(placement.slots_LRS.shape, dtype=int)
    flat, rows = np.zeros(trace.num_layers, int), np.zeros(trace.num_layers, int)
    cards = cluster.nodes * cluster.cards
    into, out = (np.zeros((trace.num_layers, cards), int) for _ in range(2))
    fast = np.zeros((trace.num_layers, cluster.ranks), int)
    seen: dict[tuple[int, int], int] = {}
    turns = []
    for home, step in zip(trace.home_rank_T.tolist(), trace.step_T.tolist(), strict=True):
        turns.append(seen.get((step, home), 0) + home)
        seen[step, home] = seen.get((step, home), 0) + 1
    for layer in range(trace.num_layers):
        for token in range(trace.num_tokens):
            home = int(trace.home_rank_T[token])
            ranks = []
            for expert in trace.experts_TLK[token, layer].tolist():
                where = [divmod(int(p), size) for p in np.flatnonzero(placement.slots_LRS[layer] == expert)]
                own = [w for w in where if w[0] == home]
                near = [w for w in where if w[0] // per_node == home // per_node]
                usable = own or near or where
                rank, slot = usable[turns[token] % len(usable)]
                slot_tokens[layer, rank, slot] += 1
                ranks.append(rank)
            far = [r for r in ranks if r // per_node != home // per_node]
            flat[layer] += len(far)
            rows[layer] += len({r // per_node for r in far})
            if cluster.once_per_node:
                landings = [node * per_node + home % per_node for node in {r // per_node for r in far}]
                fast_ranks = {r for r in ranks if r % per_node != home % per_node}
            else:
                landings = far
                fast_ranks = [r for r in ranks if r // per_node == home // per_node and r != home]
            for landing in landings:
                into[layer, landing * cluster.cards // per_node] += 1
                out[layer, home * cluster.cards // per_node] += 1
            for rank in fast_ranks:
                fast[layer, rank] += 1
    return slot_tokens, flat, rows, into, out, fast


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    once=st.booleans(),
    per_node=st.sampled_from([1, 2, 4]),
    cards=st.sampled_from([0, 1]),
    extra=st.integers(0, 2),
)
def test_counting_equals_the_oracle(seed, once, per_node, cards, extra):
    rng = np.random.default_rng(seed)
    trace = random_trace(24, 2, 5, 2, ranks=4, seed=seed)
    cluster = topology(4, per_node, once_per_node=once, cards_per_node=cards)
    placement = balanced(rng.lognormal(0, 1, (2, 5)), 4, 2 + extra)
    counted = count(placement, trace, cluster)
    names = (
        "slot_tokens_LRS",
        "flat_rows_L",
        "node_rows_L",
        "into_card_LC",
        "out_of_card_LC",
        "into_rank_LR",
    )
    for name, expected in zip(names, oracle(placement, trace, cluster), strict=True):
        assert np.array_equal(getattr(counted, name), expected), name


def test_counting_is_the_same_in_pieces(monkeypatch):
    trace, cluster = random_trace(50, 1, 6, 3, ranks=4, seed=1), topology(4, 2)
    placement = balanced([[9, 1, 1, 1, 1, 1]], 4, 2)
    whole = count(placement, trace, cluster)
    monkeypatch.setattr("wingspan.placement.exact._CHUNK_TOKENS", 7)
    pieces = count(placement, trace, cluster)
    assert np.array_equal(whole.slot_tokens_LRS, pieces.slot_tokens_LRS)
    assert np.array_equal(whole.into_card_LC, pieces.into_card_LC)


def tokens(picks, homes, ranks) -> RoutingTrace:
    count_T = len(picks)
    return RoutingTrace(
        np.array(picks, np.int16)[:, None, :], np.array(homes, np.int32), np.arange(count_T, dtype=np.int32),
        np.zeros(count_T, np.int32), 4, ranks,
    )  # fmt: skip


def test_score_by_hand():
    # Four experts on four ranks, nodes {0, 1} and {2, 3}. Token A on rank 0 picks 2, 3; token B on rank 3 picks 0, 3.
    trace = tokens([[2, 3], [0, 3]], [0, 3], 4)
    cluster = topology(4, 2, row_bytes=10, across_bytes_per_second=100.0, seconds_per_token=0.5)
    figures = score(linear(1, 4, 4), trace, cluster)
    assert figures.across_flat_bytes == 3 * 2 * 10
    assert figures.across_deduplicated_bytes == 2 * 2 * 10
    assert figures.rank_imbalance_L.tolist() == [2 / 1]
    assert figures.compute_seconds == 2 * 0.5
    # A's row enters card 2 (index 0 of the other node), B's row card 1: one row each, out and back.
    assert figures.busiest_card_bytes == 2 * 10
    assert figures.link_seconds == pytest.approx(2 * 10 / 100.0)
    assert figures.experts_moved is None


def test_steps_only_scale_and_conserve_tokens():
    trace, cluster = random_trace(64, 3, 8, 2, ranks=8, seed=5), topology(8, 4)
    placement = linear(3, 8, 8)
    one, ten = (score(placement, trace, cluster, steps=s) for s in (1, 10))
    assert ten.step_seconds == pytest.approx(one.step_seconds / 10)
    assert ten.imbalance == one.imbalance
    counted = count(placement, trace, cluster)
    assert np.array_equal(counted.slot_tokens_LRS.reshape(3, 8), expert_load(trace))
    assert (counted.node_rows_L <= counted.flat_rows_L).all()


def test_disagreeing_inputs_are_named():
    trace, cluster = random_trace(8, 2, 8, 2, ranks=8, seed=0), topology(8, 4)
    with pytest.raises(InputError, match="3 MoE layers, the trace 2"):
        score(linear(3, 8, 8), trace, cluster)
    with pytest.raises(InputError, match="4 ranks, the plan 8"):
        score(linear(2, 8, 4, 2), trace, cluster)
    with pytest.raises(InputError, match="live on 8 ranks, the plan has 4"):
        score(linear(2, 8, 4, 2), trace, topology(4, 4))
    with pytest.raises(InputError, match="no token"):
        score(linear(2, 8, 8), trace.take(slice(0, 0)), cluster)


def test_an_idle_slot_costs_nothing_and_a_busy_one_at_least_its_weights():
    trace = tokens([[0, 1]], [0], 2)
    cluster = topology(2, 2, seconds_per_token=1.0, seconds_per_expert=5.0)
    placement = Placement(np.array([[[0, 2, EMPTY], [1, 3, EMPTY]]]), 4)
    assert score(placement, trace, cluster).compute_seconds == 5.0
