"""The objective from counts against counting tokens."""

from __future__ import annotations

import numpy as np
import pytest

from tests.placement.examples import exact_demand, random_trace, topology, trace
from wingspan.placement.balanced import balanced
from wingspan.placement.demand import Demand
from wingspan.placement.exact import count
from wingspan.placement.expected import expect, slot_flows
from wingspan.placement.simple import linear
from wingspan.routing.synthetic import TraceShape


@pytest.mark.parametrize("once", [False, True])
def test_without_replicas_loads_are_exact_and_so_are_flat_rows(once):
    tokens, cluster = random_trace(200, 2, 8, 2, ranks=8, seed=1), topology(8, 4, once_per_node=once)
    placement = linear(2, 8, 8)
    expected = expect(placement.slots_LRS, exact_demand(tokens, cluster), cluster)
    counted = count(placement, tokens, cluster)
    assert np.allclose(expected.slot_tokens_LRS * 2, counted.slot_tokens_LRS)
    if not once:
        assert np.allclose(expected.across_rows_LNN.sum(axis=(1, 2)) * 2, counted.flat_rows_L)


@pytest.mark.parametrize("kind", ["uniform", "log-normal", "communities"])
def test_rows_once_per_node_come_within_a_tenth(kind):
    shape = TraceShape(4000, 3, 32, 4, 16, request_tokens=4)
    tokens, cluster = trace(kind, shape), topology(16, 4)
    placement = linear(3, 32, 16, 2)
    expected = expect(placement.slots_LRS, exact_demand(tokens, cluster), cluster)
    counted = count(placement, tokens, cluster)
    steps = len(np.unique(tokens.step_T))
    assert expected.across_rows_LNN.sum() * steps == pytest.approx(counted.node_rows_L.sum(), rel=0.1)


def test_replicas_share_what_the_runtime_shares_among_them():
    shape = TraceShape(6000, 2, 16, 2, 16, request_tokens=4)
    tokens, cluster = trace("log-normal", shape), topology(16, 4)
    demand = exact_demand(tokens, cluster)
    placement = balanced(demand.load_LE, 16, 2)
    expected = expect(placement.slots_LRS, demand, cluster)
    counted = count(placement, tokens, cluster).slot_tokens_LRS / len(np.unique(tokens.step_T))
    assert expected.slot_tokens_LRS.sum() == pytest.approx(counted.sum())
    # Inside a node the runtime prefers the own rank, which counts by node do not know; nodes must agree.
    by_node = [x.reshape(2, 4, -1).sum(axis=2) for x in (expected.slot_tokens_LRS, counted)]
    assert np.allclose(by_node[0], by_node[1], rtol=0.05)


def test_flows_by_hand():
    # Expert 0 on both nodes: each keeps its own. Expert 1 only on node 0 serves both.
    demand = Demand(np.array([[4.0, 6.0]]), np.array([[[3.0, 1.0], [2.0, 4.0]]]), np.zeros((1, 2, 2)))
    flows = slot_flows(np.array([[0, 1, 0, -1]]), demand, nodes=2)
    assert flows[0].tolist() == [[3, 2, 0, 0], [0, 4, 1, 0]]


def test_no_traffic_costs_nothing():
    demand = Demand.of_load(np.zeros((1, 4)), 2)
    assert expect(linear(1, 4, 4).slots_LRS, demand, topology(4, 2)).seconds_L.tolist() == [0.0]
