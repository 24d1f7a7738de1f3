"""Expected traffic against tokens counted one by one, and against formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.placement.examples import exact_demand, objective, trace
from tests.simulate.builders import cluster
from wingspan.placement.balanced import balanced
from wingspan.placement.simple import linear, random
from wingspan.routing import shares
from wingspan.routing.distinct import expected_distinct
from wingspan.routing.synthetic import TraceShape
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY, Placement
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice
from wingspan.traffic.expected import expected_slot_rows, expected_traffic
from wingspan.traffic.layers import Domains, LayerTraffic
from wingspan.traffic.links import flat_traffic
from wingspan.traffic.rule import NEAREST_FIRST

_TOKENS = 40_000
LEVELS = ("scale_up_sent", "scale_up_received", "scale_out_sent", "scale_out_received")


def totals(found: LayerTraffic) -> list[float]:
    return [float(getattr(found.links, level).sum()) for level in LEVELS]


@pytest.mark.parametrize("kind", list(DispatcherKind))
@pytest.mark.parametrize("workload", ["uniform", "log-normal", "communities", "source-affine"])
@pytest.mark.parametrize("replicas", [False, True])
def test_statistics_give_what_counting_gives(workload: str, kind: DispatcherKind, replicas: bool) -> None:
    """Co-activation knows pairs only, and not that a token takes the same turn among the replicas of all its experts:
    where that counts the estimate is a few per cent off.
    """
    drawn, on = trace(workload, TraceShape(6000, 3, 32, 4, 16, request_tokens=4)), objective(16, 4)
    demand = exact_demand(drawn, on)
    placement = balanced(demand.load_LE, 16, 3) if replicas else linear(3, 32, 16, 2)
    steps = len(np.unique(drawn.step_T))
    counted = count_traffic(placement, drawn, on.cluster, kind)
    expected = expected_traffic(placement.slots_LRS, demand, on.cluster, kind).scaled(steps)
    takes_turns = replicas and kind is not DispatcherKind.FLAT
    tolerance = 0.05 if workload == "communities" or takes_turns else 0.02
    assert totals(expected) == pytest.approx(totals(counted), rel=tolerance)
    assert expected.arrived_LR.sum() == pytest.approx(counted.arrived_LR.sum(), rel=tolerance)
    assert expected.slot_rows_LRS.sum() == pytest.approx(counted.slot_rows_LRS.sum())
    # What a single rank holds differs by chance only.
    scale = counted.slot_rows_LRS.sum(axis=2).mean()
    assert np.abs(expected.slot_rows_LRS - counted.slot_rows_LRS).sum(axis=2).max() < 0.35 * scale


def test_without_replicas_loads_and_flat_rows_are_exact():
    drawn, on = trace("log-normal", TraceShape(4096, 2, 8, 2, 8, request_tokens=4)), objective(8, 4)
    placement = linear(2, 8, 8)
    steps = len(np.unique(drawn.step_T))
    expected = expected_traffic(
        placement.slots_LRS, exact_demand(drawn, on), on.cluster, DispatcherKind.FLAT
    ).scaled(steps)
    counted = count_traffic(placement, drawn, on.cluster, DispatcherKind.FLAT)
    assert np.allclose(expected.slot_rows_LRS, counted.slot_rows_LRS)
    assert expected.links.scale_out_received.sum() == pytest.approx(counted.links.scale_out_received.sum())


def test_flows_by_hand():
    # Expert 0 on both nodes: each keeps its own. Expert 1 only on node 0 serves both.
    demand = Demand(np.array([[4.0, 6.0]]), Choice(2, 1), np.array([[[3.0, 1.0], [2.0, 4.0]]]))
    slots_LRS = np.array([[[0], [1], [0], [EMPTY]]])
    assert expected_slot_rows(slots_LRS, demand, Domains(4, 2), NEAREST_FIRST).ravel().tolist() == [
        3,
        6,
        1,
        0,
    ]


def test_no_traffic_costs_nothing():
    nothing = Demand.of_load(np.zeros((1, 4)), Choice(4, 2))
    assert objective(4, 2).seconds_L(linear(1, 4, 4).slots_LRS, nothing).tolist() == [0.0]


def uniform(experts: int, top_k: int, tokens: float, layers: int = 1) -> Demand:
    return Demand(shares.uniform(layers, experts, top_k) * tokens, Choice(experts, top_k))


@pytest.mark.parametrize(("top_k", "domains"), [(8, 2), (8, 8), (2, 4)])
def test_uniform_routing_crosses_to_as_many_domains_as_the_formula_says(top_k: int, domains: int) -> None:
    ranks = domains * 8
    slots_LRS = linear(1, 64, ranks, 64 // ranks or 1).slots_LRS
    got = expected_traffic(
        slots_LRS, uniform(64, top_k, 1.0), cluster(gpus=ranks), DispatcherKind.HIERARCHICAL
    )
    others = expected_distinct(64, top_k, domains) * (domains - 1) / domains
    assert got.links.scale_out_sent.sum() == pytest.approx(others)


def _drawn(choice: Choice, weights_E: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    """Which experts each of many tokens picks: the top-k of weighted random keys, within the best groups."""
    rng = np.random.default_rng(seed)
    key_TE = np.log(weights_E) + rng.gumbel(size=(_TOKENS, choice.count))
    if choice.groups > 1:
        group_TG = rng.random((_TOKENS, choice.groups))
        cut_T1 = -np.sort(-group_TG, axis=1)[:, choice.groups_per_token - 1, None]
        open_TG = group_TG >= cut_T1
        key_TE = np.where(np.repeat(open_TG, choice.count // choice.groups, axis=1), key_TE, -np.inf)
    cut_T1 = -np.sort(-key_TE, axis=1)[:, choice.per_token - 1, None]
    return key_TE >= cut_T1


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.2])
@pytest.mark.parametrize("groups", [(1, 1), (8, 4)])
def test_hits_are_those_of_drawn_tokens(sigma: float, groups: tuple[int, int]) -> None:
    choice = Choice(64, 8, *groups)
    weights_E = np.exp(sigma * np.random.default_rng(7).standard_normal(64))
    picked_TE = _drawn(choice, weights_E, seed=1)
    by_rank = picked_TE.reshape(_TOKENS, 32, 2).any(axis=2)
    demand = Demand(picked_TE.mean(axis=0)[None], choice)
    slots_LRS = linear(1, 64, 32, 2).slots_LRS
    got = expected_traffic(slots_LRS, demand, cluster(gpus=32), DispatcherKind.HIERARCHICAL)
    assert got.arrived_LR.sum() == pytest.approx(by_rank.mean(axis=0).sum(), rel=0.03)
    by_node = by_rank.reshape(_TOKENS, 4, 8).any(axis=2).mean(axis=0).sum()
    assert got.links.scale_out_sent.sum() == pytest.approx(by_node * 3 / 4, rel=0.03)


def test_flat_traffic_is_that_of_the_whole_matrix() -> None:
    shares_LE = shares.log_normal(3, 64, 4, 0.8, seed=1)
    placement, sized = random(3, 64, 32, 2, seed=2), cluster(gpus=32)
    demand = Demand(shares_LE * 320, Choice(64, 4))
    got = expected_traffic(placement.slots_LRS, demand, sized, DispatcherKind.FLAT).links
    picked_LRS = shares_LE[np.arange(3)[:, None, None], placement.slots_LRS]
    whole = flat_traffic(sized, np.repeat(picked_LRS.sum(axis=2)[:, None, :] * 10, 32, axis=1))
    for level in LEVELS:
        assert getattr(got, level) == pytest.approx(getattr(whole, level))


def test_replicas_take_their_own_domains_rows_and_share_the_rest() -> None:
    placement = Placement(np.array([[[0], [1], [2], [3], [0], [EMPTY], [EMPTY], [EMPTY]]]), 4)
    sized = cluster(gpus=8, gpus_per_node=2, nodes=4, scale_up_domain_gpus=2)
    got = expected_traffic(placement.slots_LRS, uniform(4, 1, 800.0), sized, DispatcherKind.FLAT)
    # Expert 0 lies in domains 0 and 2: each keeps its own tokens, domains 1 and 3 send half to either.
    assert got.arrived_LR[0].tolist() == pytest.approx([100, 200, 200, 200, 100, 0, 0, 0])
    assert got.links.scale_out_sent.sum() == pytest.approx(got.links.scale_out_received.sum())
    assert got.links.scale_up_sent.sum() == pytest.approx(got.links.scale_up_received.sum())
    # Domain 0 has experts 0 and 1: its ranks send the other two quarters out.
    assert got.links.scale_out_sent[0, 0] == pytest.approx(50)


def test_a_replica_on_the_own_rank_sends_nothing() -> None:
    """Both ranks of a node hold expert 0: its rows never use the link, whoever picks it."""
    slots_LRS = np.array([[[0, 1], [0, 2]]])
    got = expected_traffic(slots_LRS, uniform(3, 1, 6.0), objective(2, 2).cluster, DispatcherKind.FLAT)
    assert got.links.scale_up_sent.tolist() == [[1.0, 1.0]]
    assert got.links.scale_up_received.tolist() == [[1.0, 1.0]]


def skewed(layers: int, experts: int, top_k: int, tokens: float, sigma: float = 0.8) -> Demand:
    return Demand(shares.log_normal(layers, experts, top_k, sigma, seed=3) * tokens, Choice(experts, top_k))


@pytest.mark.parametrize("kind", list(DispatcherKind))
@pytest.mark.parametrize(
    "on", [cluster(gpus=32), cluster(gpus=40).model_copy(update={"scale_up_domain_gpus": 16})]
)
def test_what_is_sent_is_received(kind: DispatcherKind, on: Cluster) -> None:
    slots_LRS = linear(2, 2 * on.gpus, on.gpus, 2).slots_LRS
    got = expected_traffic(slots_LRS, skewed(2, 2 * on.gpus, 4, 5.0), on, kind).links
    assert got.scale_out_sent.shape == (2, on.gpus)
    assert got.scale_out_sent.sum() == pytest.approx(got.scale_out_received.sum())
    assert got.scale_up_sent.sum() == pytest.approx(got.scale_up_received.sum())


def test_the_more_rows_are_shared_the_fewer_cross() -> None:
    sized, demand = cluster(gpus=32), skewed(1, 64, 8, 32.0)
    slots_LRS = linear(1, 64, 32, 2).slots_LRS
    flat, once, node = (
        expected_traffic(slots_LRS, demand, sized, kind).links.scale_out_sent for kind in DispatcherKind
    )
    assert (node <= once + 1e-9).all()
    assert (once <= flat + 1e-9).all()


def test_racks_carry_what_leaves_them() -> None:
    base = cluster(gpus=32)
    racks = base.model_validate({**base.model_dump(), "racks": {"nodes_per_rack": 2, "oversubscription": 4}})
    got = expected_traffic(linear(1, 64, 32, 2).slots_LRS, uniform(64, 1, 320.0), racks, DispatcherKind.FLAT)
    # 16 ranks x 10 tokens, half of their experts in the other rack.
    assert got.links.rack_sent.tolist() == [[80.0, 80.0]]
    assert got.links.rack_received.tolist() == [[80.0, 80.0]]
