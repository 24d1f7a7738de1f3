"""Expected traffic against tokens that are really drawn, and against the whole source x destination matrix."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.simulate.builders import cluster
from wingspan.cost.distinct import expected_distinct
from wingspan.cost.exchange import Method, flat_traffic
from wingspan.placement.placement import EMPTY, Placement
from wingspan.placement.simple import linear, random
from wingspan.routing import shares
from wingspan.simulate.traffic import arrived_rows, routes, traffic
from wingspan.specs.model import Experts

_TOKENS = 40_000


def _experts(count: int, top_k: int, groups: int = 1, per_token: int = 1) -> Experts:
    return Experts(
        count=count, per_token=top_k, intermediate=8, gated=True, groups=groups, groups_per_token=per_token
    )


def _drawn(experts: Experts, weights_E: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    """Which experts each of many tokens picks: the top-k of weighted random keys, within the best groups."""
    rng = np.random.default_rng(seed)
    key_TE = np.log(weights_E) + rng.gumbel(size=(_TOKENS, experts.count))
    if experts.groups > 1:
        group_TG = rng.random((_TOKENS, experts.groups))
        cut_T1 = -np.sort(-group_TG, axis=1)[:, experts.groups_per_token - 1, None]
        open_TG = group_TG >= cut_T1
        key_TE = np.where(np.repeat(open_TG, experts.count // experts.groups, axis=1), key_TE, -np.inf)
    cut_T1 = -np.sort(-key_TE, axis=1)[:, experts.per_token - 1, None]
    return key_TE >= cut_T1


@pytest.mark.parametrize(("top_k", "domains"), [(8, 2), (8, 8), (2, 4)])
def test_uniform_routing_hits_as_many_domains_as_the_formula_says(top_k: int, domains: int) -> None:
    ranks = domains * 8
    way = routes(
        linear(1, 64, ranks, 64 // ranks or 1),
        shares.uniform(1, 64, top_k),
        _experts(64, top_k),
        cluster(gpus=ranks),
    )
    assert way.domain_hit_LCG.sum() == pytest.approx(expected_distinct(64, top_k, domains))


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.2])
@pytest.mark.parametrize("groups", [(1, 1), (8, 4)])
def test_hits_are_those_of_drawn_tokens(sigma: float, groups: tuple[int, int]) -> None:
    experts = _experts(64, 8, *groups)
    weights_E = np.exp(sigma * np.random.default_rng(7).standard_normal(64))
    picked_TE = _drawn(experts, weights_E, seed=1)
    placement = linear(1, 64, 32, 2)
    way = routes(placement, picked_TE.mean(axis=0)[None], experts, cluster(gpus=32))
    by_rank = picked_TE.reshape(_TOKENS, 32, 2).any(axis=2)
    by_node = by_rank.reshape(_TOKENS, 4, 8).any(axis=2)
    assert way.rank_hit_LCR[0, 0].sum() == pytest.approx(by_rank.mean(axis=0).sum(), rel=0.03)
    assert way.domain_hit_LCG[0, 0].sum() == pytest.approx(by_node.mean(axis=0).sum(), rel=0.03)


def test_flat_traffic_is_that_of_the_whole_matrix() -> None:
    shares_LE = shares.log_normal(3, 64, 4, 0.8, seed=1)
    placement, sized = random(3, 64, 32, 2, seed=2), cluster(gpus=32)
    way = routes(placement, shares_LE, _experts(64, 4), sized)
    got = traffic(sized, way, tokens=10, row_bytes=7, method=Method.LOW_LATENCY)
    picked_LRS = shares_LE[np.arange(3)[:, None, None], placement.slots_LRS]
    bytes_LRR = np.repeat(picked_LRS.sum(axis=2)[:, None, :] * 70, 32, axis=1)
    whole = flat_traffic(sized, bytes_LRR)
    for level in ("scale_up_sent", "scale_up_received", "scale_out_sent", "scale_out_received"):
        assert getattr(got, level) == pytest.approx(getattr(whole, level))


def test_replicas_take_their_own_domains_rows_and_share_the_rest() -> None:
    slots = np.array([[[0], [1], [2], [3], [0], [EMPTY], [EMPTY], [EMPTY]]])
    placement = Placement(slots, 4)
    sized = cluster(gpus=8, gpus_per_node=2, nodes=4, scale_up_domain_gpus=2)
    way = routes(placement, shares.uniform(1, 4, 1), _experts(4, 1), sized)
    # Expert 0 lies in domains 0 and 2: each keeps its own tokens, domains 1 and 3 send half to either.
    assert way.chosen_LCX[0, :, 0].tolist() == [0.25, 0.125, 0.0, 0.125]
    assert way.chosen_LCX[0, :, 4].tolist() == [0.0, 0.125, 0.25, 0.125]
    assert way.share_LX[0].tolist() == [0.5, 1, 1, 1, 0.5, 0, 0, 0]
    assert arrived_rows(way, 100, Method.LOW_LATENCY)[0].tolist() == pytest.approx(
        [100, 200, 200, 200, 100, 0, 0, 0]
    )
    got = traffic(sized, way, tokens=1, row_bytes=1, method=Method.LOW_LATENCY)
    assert got.scale_out_sent.sum() == pytest.approx(got.scale_out_received.sum())
    assert got.scale_up_sent.sum() == pytest.approx(got.scale_up_received.sum())
    # Domain 0 has experts 0 and 1: its ranks send the other two quarters out.
    assert got.scale_out_sent[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("method", list(Method))
def test_what_is_sent_is_received(method: Method) -> None:
    shares_LE = shares.log_normal(2, 64, 4, 1.0, seed=3)
    sized = cluster(gpus=32)
    way = routes(linear(2, 64, 32, 2), shares_LE, _experts(64, 4), sized)
    got = traffic(sized, way, tokens=5, row_bytes=3, method=method)
    assert got.scale_out_sent.sum() == pytest.approx(got.scale_out_received.sum())
    assert got.scale_up_sent.sum() == pytest.approx(got.scale_up_received.sum())


def test_one_row_per_node_is_never_more_than_one_per_expert() -> None:
    sized = cluster(gpus=32)
    way = routes(linear(1, 64, 32, 2), shares.power_law(1, 64, 8, 0.9, seed=4), _experts(64, 8), sized)
    one = traffic(sized, way, 1, 1, Method.NORMAL).scale_out_sent
    every = traffic(sized, way, 1, 1, Method.LOW_LATENCY).scale_out_sent
    assert (one <= every + 1e-9).all()


def test_racks_carry_what_leaves_them() -> None:
    base = cluster(gpus=32)
    racks = base.model_validate({**base.model_dump(), "racks": {"nodes_per_rack": 2, "oversubscription": 4}})
    way = routes(linear(1, 64, 32, 2), shares.uniform(1, 64, 1), _experts(64, 1), racks)
    got = traffic(racks, way, tokens=10, row_bytes=1, method=Method.LOW_LATENCY)
    # 16 ranks x 10 tokens, half of their experts in the other rack.
    assert got.rack_sent.tolist() == [[80.0, 80.0]]
    assert got.rack_received.tolist() == [[80.0, 80.0]]


@pytest.mark.parametrize("method", list(Method))
def test_a_narrower_last_domain(method: Method) -> None:
    sized = cluster(gpus=40).model_copy(update={"scale_up_domain_gpus": 16})
    shares_LE = shares.log_normal(1, 80, 4, 0.5, seed=3)
    placement = linear(1, 80, 40, 2)
    way = routes(placement, shares_LE, _experts(80, 4), sized)
    assert way.ranks_G.tolist() == [16, 16, 8]
    got = traffic(sized, way, tokens=5, row_bytes=2, method=method)
    assert got.scale_out_sent.shape == (1, 40)
    assert got.scale_out_sent.sum() == pytest.approx(got.scale_out_received.sum())
    if method is Method.LOW_LATENCY:
        whole = flat_traffic(
            sized, np.repeat(shares_LE.reshape(1, 40, 2).sum(axis=2)[:, None, :] * 10, 40, axis=1)
        )
        for level in ("scale_up_sent", "scale_up_received", "scale_out_sent", "scale_out_received"):
            assert getattr(got, level) == pytest.approx(getattr(whole, level))
