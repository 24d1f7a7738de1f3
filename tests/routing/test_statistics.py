"""Counts of a trace: conserved, the same in pieces as in one, equal to counting by hand."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.routing.test_trace_file import random_trace
from wingspan.errors import InputError
from wingspan.routing.coactivation import expected_coactivation
from wingspan.routing.distinct import expected_distinct_nodes
from wingspan.routing.statistics import (
    by_node,
    coactivation,
    collect,
    distinct_nodes,
    expert_load,
    source_traffic,
)
from wingspan.routing.structure import community_strength, drift, top_pairs
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.workloads import workload


@st.composite
def traces(draw) -> RoutingTrace:
    experts = draw(st.integers(2, 12))
    return random_trace(
        draw(st.integers(1, 40)), draw(st.integers(1, 3)), draw(st.integers(1, min(4, experts))), experts,
        ranks=draw(st.integers(1, 6)), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_counts_are_conserved(trace):
    """Every token picks top-k experts in every layer, lives on one rank, and pairs each pick with k - 1 others."""
    choices, k = trace.num_tokens * trace.top_k, trace.top_k
    load_LE = expert_load(trace)
    assert (load_LE.sum(axis=1) == choices).all()
    assert (source_traffic(trace).sum(axis=2) == load_LE).all()
    assert (by_node(source_traffic(trace), 4).sum(axis=2) == load_LE).all()
    both_LEE = coactivation(trace)
    assert (both_LEE == both_LEE.transpose(0, 2, 1)).all()
    assert (both_LEE.diagonal(axis1=1, axis2=2) == load_LE).all()
    assert (both_LEE.sum(axis=2) == load_LE * k).all()
    nodes_LN = distinct_nodes(trace, np.arange(trace.num_experts) // 3)
    assert (nodes_LN.sum(axis=1) == trace.num_tokens).all()
    assert (nodes_LN[:, 0] == 0).all()


@settings(max_examples=40, deadline=None)
@given(trace=traces(), size=st.integers(1, 50), windows=st.integers(1, 5))
def test_streamed_equals_whole(trace, size, windows):
    nodes = {"3": np.arange(trace.num_experts) // 3}
    whole = collect([trace], trace.num_tokens, num_windows=windows, nodes=nodes)
    pieces = collect(trace.chunks(size), trace.num_tokens, num_windows=windows, nodes=nodes)
    for name in ("load_LE", "coactivation_LEE", "source_LER", "window_load_WLE"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name
    assert np.array_equal(whole.distinct_nodes_LN["3"], pieces.distinct_nodes_LN["3"])
    assert np.array_equal(whole.window_load_WLE.sum(axis=0), whole.load_LE)
    assert len(whole.window_load_WLE) == min(windows, trace.num_tokens)


def test_counts_by_hand():
    trace = random_trace(9, 2, 3, 5, ranks=2)
    layer = trace.experts_TLK[:, 1].tolist()
    both = np.zeros((5, 5), dtype=int)
    for picks in layer:
        for one, two in combinations(picks, 2):
            both[one, two] += 1
            both[two, one] += 1
    counted = coactivation(trace)[1]
    np.fill_diagonal(counted, 0)
    assert (counted == both).all()
    node = [0, 0, 1, 1, 1]
    by_hand = np.bincount([len({node[e] for e in picks}) for picks in layer], minlength=4)
    assert (distinct_nodes(trace, node)[1] == by_hand).all()
    expert, rank = 3, 1
    assert source_traffic(trace)[1, expert, rank] == sum(
        expert in picks and home == rank for picks, home in zip(layer, trace.home_rank_T, strict=True)
    )


def test_pieces_that_know_fewer_ranks():
    one, two = random_trace(5, 1, 1, 3, ranks=2), random_trace(5, 1, 1, 3, ranks=4)
    two = RoutingTrace(two.experts_TLK, two.home_rank_T, two.request_T, two.step_T + 9, 3, 4)
    counted = collect([one, two], 10).source_LER
    assert (counted == source_traffic(concatenate([one, two]))).all()
    assert (collect([two, one], 10).source_LER == counted).all()


def test_wrong_number_of_tokens_is_refused():
    trace = random_trace(5, 1, 1, 3)
    with pytest.raises(InputError, match="6 tokens announced, 5 came"):
        collect([trace], 6)
    with pytest.raises(InputError, match="0 came"):
        collect([], 0)


@pytest.mark.parametrize(("nodes", "published"), [(2, 1.99), (4, 3.61), (8, 5.29), (16, 6.52), (32, 7.27)])
def test_expected_nodes_as_published(nodes, published):
    """The table of docs/design.md: 256 experts, top-8."""
    got = expected_distinct_nodes(np.arange(256) * nodes // 256, 8)
    assert got == pytest.approx(nodes * (1 - comb(256 - 256 // nodes, 8) / comb(256, 8)), rel=1e-9)
    assert got == pytest.approx(published, abs=0.006)


def test_expected_nodes_of_uneven_nodes():
    assert expected_distinct_nodes([0, 0, 1, 2], 2) == pytest.approx(3 - (1 / 6 + 1 / 2 + 1 / 2))
    assert expected_distinct_nodes([0, 1, 1], 3) == pytest.approx(2)
    with pytest.raises(InputError, match="top-3 of 2"):
        expected_distinct_nodes([0, 1], 3)


def test_uniform_routing_meets_its_expectation():
    trace = concatenate(list(make("uniform", tokens=4000)))
    histogram = distinct_nodes(trace, np.arange(32) // 8)
    mean_L = histogram @ np.arange(5) / trace.num_tokens
    assert mean_L == pytest.approx(expected_distinct_nodes(np.arange(32) // 8, 4), abs=0.05)


def make(kind: str, tokens: int = 4000, **knobs: float):
    shape = TraceShape(tokens, layers=2, experts=32, top_k=4, ranks=8)
    return generate(shape, workload(kind, shape, 3, **knobs), 3)


def test_chance_is_not_taken_for_structure():
    counted = collect(make("uniform"), 4000)
    moved, grouped = drift(counted.window_load_WLE), community_strength(counted.coactivation_LEE)
    assert moved.value == pytest.approx(moved.by_chance, rel=0.6)
    assert grouped.value == pytest.approx(grouped.by_chance, rel=0.2)


def test_skewed_loads_alone_are_no_community():
    counted = collect(make("power-law", exponent=0.7), 4000)
    strength = community_strength(counted.coactivation_LEE)
    assert (strength.value < 2 * strength.by_chance).all()


def test_planted_structure_is_found():
    grouped = collect(make("communities", groups=4, noise=0.0), 4000)
    # Four groups of eight: only 4 x 28 of the 496 pairs ever occur.
    assert community_strength(grouped.coactivation_LEE).value == pytest.approx(1 - 4 * 28 / 496, abs=0.02)
    pair = top_pairs(grouped.coactivation_LEE, 1)[0]
    assert pair.lift == pytest.approx(496 / (4 * 28), rel=0.2)
    moved = drift(collect(make("rotating", turns=8), 4000).window_load_WLE)
    assert (moved.value > 3 * moved.by_chance).all()


def test_the_null_has_the_row_sums_of_the_counts():
    both_LEE = collect(make("power-law"), 4000).coactivation_LEE
    rows_LE = both_LEE.sum(axis=2) - both_LEE.diagonal(axis1=1, axis2=2)
    assert expected_coactivation(both_LEE).sum(axis=2) == pytest.approx(rows_LE, rel=1e-3)


def test_top_1_and_empty_layers_have_no_pairs():
    counted = collect([random_trace(20, 2, 1, 4)], 20)
    assert top_pairs(counted.coactivation_LEE, 5) == []
    assert (community_strength(counted.coactivation_LEE).value == 0).all()
