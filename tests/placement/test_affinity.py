"""Request routing: balance, hand example, and the gain where requests keep to their experts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.placement.examples import across_rows, objective, random_trace, trace
from wingspan.placement.affinity import home_nodes, rehome
from wingspan.placement.simple import linear
from wingspan.routing.homes import spread_requests
from wingspan.routing.synthetic import TraceShape
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.workloads import planted_groups
from wingspan.specs.placement import Placement


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), tokens=st.integers(1, 60), once=st.booleans())
def test_nodes_get_equally_many_requests_and_tokens_stay_the_same(seed, tokens, once):
    before, cluster = random_trace(tokens, 2, 6, 2, ranks=6, seed=seed), objective(6, 2, once_per_node=once)
    nodes = home_nodes(before, linear(2, 6, 6), cluster)
    per_node = Counter(nodes.values())
    assert max(per_node.values()) - min(per_node.get(n, 0) for n in range(3)) <= 1
    after = rehome(before, nodes, cluster)
    assert np.array_equal(after.experts_TLK, before.experts_TLK)
    assert [nodes[r] for r in after.request_T.tolist()] == (after.home_rank_T // 2).tolist()


def test_each_request_lives_with_its_experts():
    picks = np.array([[[2]], [[3]], [[0]], [[1]]], np.int16)
    zeros = np.zeros(4, np.int32)
    tokens = RoutingTrace(picks, zeros, np.array([0, 0, 1, 1], np.int32), zeros, 4, 4)
    cluster = objective(4, 2)
    assert home_nodes(tokens, linear(1, 4, 4), cluster) == {0: 1, 1: 0}


def test_requests_of_communities_nearly_stop_crossing():
    shape = TraceShape(4000, 3, 32, 4, 32, request_tokens=20)
    tokens, cluster = trace("communities", shape, groups=8, noise=0.0), objective(32, 4)
    planted = Placement(np.argsort(planted_groups(shape, 0, 8), axis=1, kind="stable")[:, :, None], 32)
    routed = rehome(tokens, home_nodes(tokens, planted, cluster), cluster)
    before, after = (across_rows(planted, t, cluster) for t in (tokens, routed))
    # Groups are not equally popular, homes are: what is over must live elsewhere.
    assert after < 0.35 * before


def test_requests_without_a_node_keep_their_home():
    tokens, cluster = random_trace(20, 1, 4, 1, ranks=4, seed=0), objective(4, 2)
    assert np.array_equal(rehome(tokens, {}, cluster).home_rank_T, tokens.home_rank_T)


@pytest.mark.parametrize("ranks", [1, 3, 16])
def test_spreading_deals_requests_to_ranks_in_turn(ranks):
    tokens = random_trace(60, 1, 4, 1, ranks=4, seed=0)
    spread = spread_requests(tokens, ranks)
    assert spread.num_ranks == ranks
    homes = {
        r: set(spread.home_rank_T[spread.request_T == r].tolist()) for r in set(spread.request_T.tolist())
    }
    assert [homes[r] for r in sorted(homes)] == [{i % ranks} for i in range(len(homes))]
