"""Our strategy: constraints under any demand, planted optima, nothing gained from nothing, stickiness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.placement.examples import across_rows, demand, objective, trace
from wingspan.errors import InputError
from wingspan.placement.difference import difference
from wingspan.placement.plan import Moving, plan
from wingspan.placement.simple import linear
from wingspan.routing.synthetic import TraceShape
from wingspan.routing.workloads import planted_groups
from wingspan.specs.placement import Placement
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice


def random_demand(seed: int, layers: int, experts: int, nodes: int) -> Demand:
    rng = np.random.default_rng(seed)
    load = rng.lognormal(0, rng.choice([0.0, 1.0, 2.0]), (layers, experts)) * 10
    source = load[:, :, None] * rng.dirichlet(np.ones(nodes), (layers, experts))
    together = rng.random((layers, experts, experts)) * np.minimum(load[:, :, None], load[:, None, :])
    together = np.minimum(together, together.transpose(0, 2, 1))
    together[:, np.arange(experts), np.arange(experts)] = 0
    return Demand(load, Choice(experts, 1 if experts == 1 else 2), source, together)


def noisy(before: Demand, noise: float, seed: int) -> Demand:
    """Loads off by `noise`, normally distributed; co-activation and sources follow."""
    factor = np.exp(noise * np.random.default_rng(seed).standard_normal(before.load_LE.shape))
    pairs = np.sqrt(factor[:, :, None] * factor[:, None, :])
    return Demand(
        before.load_LE * factor,
        before.choice,
        before.source_LEG * factor[:, :, None],
        before.together_LEE * pairs,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    nodes=st.integers(1, 4),
    per_node=st.integers(1, 3),
    more=st.integers(0, 2),
    once=st.booleans(),
    reads=st.sampled_from([0.0, 1e-5]),
)
def test_any_demand_gives_a_valid_plan_never_slower_than_linear(seed, nodes, per_node, more, once, reads):
    ranks = nodes * per_node
    experts = 1 + seed % 9
    slots = -(-experts // ranks) + more
    cluster = objective(ranks, per_node, once_per_node=once, seconds_per_expert=reads)
    wanted = random_demand(seed, 2, experts, nodes)
    first = plan(wanted, cluster, slots)  # Placement checks experts and twins
    assert first.placement.slots_LRS.shape == (2, ranks, slots)
    plain = cluster.seconds_L(linear(2, experts, ranks, slots).slots_LRS, wanted)
    assert (first.seconds_L <= plain * (1 + 1e-9)).all()
    changed = noisy(wanted, 0.5, seed)
    second = plan(changed, cluster, slots, first.placement, Moving(steps=10_000))
    keep = cluster.seconds_L(first.placement.slots_LRS, changed)
    gain = (keep - second.seconds_L) * 10_000
    assert (gain >= second.moved_L * cluster.move_seconds_per_expert - 1e-12).all()


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_planted_communities_come_within_five_percent_of_the_planted_cut(noise):
    shape = TraceShape(8000, 3, 32, 4, 32, request_tokens=4)
    tokens, cluster = trace("communities", shape, groups=8, noise=noise), objective(32, 4)
    half = slice(0, 4000)
    ours = plan(demand(tokens.take(half), cluster), cluster).placement
    order = np.argsort(planted_groups(shape, 0, 8), axis=1, kind="stable")
    planted = Placement(order[:, :, None], 32)
    later = tokens.take(slice(4000, None))
    reached, best, plain = (across_rows(p, later, cluster) for p in (ours, planted, linear(3, 32, 32)))
    assert reached <= 1.05 * best
    assert reached < plain


def test_experts_go_to_the_nodes_whose_tokens_pick_them():
    shape = TraceShape(8000, 2, 32, 4, 32, request_tokens=4)
    tokens = trace("source-affine", shape, groups=8, noise=0.1)
    for once in (True, False):
        cluster = objective(32, 4, once_per_node=once)
        ours = plan(demand(tokens.take(slice(0, 4000)), cluster), cluster).placement
        later = tokens.take(slice(4000, None))
        reached, plain = (across_rows(p, later, cluster) for p in (ours, linear(2, 32, 32)))
        assert reached < 0.25 * plain


def test_uniform_traffic_promises_next_to_nothing():
    tokens, cluster = trace("uniform", TraceShape(8000, 2, 32, 4, 32, request_tokens=4)), objective(32, 4)
    ours = plan(demand(tokens.take(slice(0, 4000)), cluster), cluster).placement
    later = tokens.take(slice(4000, None))
    reached, plain = (across_rows(p, later, cluster) for p in (ours, linear(2, 32, 32)))
    assert reached == pytest.approx(plain, rel=0.02)


def log_normal_plan():
    shape = TraceShape(6000, 4, 32, 4, 40, request_tokens=4)
    cluster = objective(40, 4)
    found = demand(trace("log-normal", shape), cluster)
    return found, cluster, plan(found, cluster).placement


def test_one_percent_of_noise_moves_no_expert():
    found, cluster, present = log_normal_plan()
    for seed in range(5):
        again = plan(noisy(found, 0.01, seed), cluster, present=present)
        assert again.placement == present
        assert set(again.chosen_L) == {"present"}


def test_twenty_percent_moves_only_what_pays_and_more_over_a_longer_horizon():
    found, cluster, present = log_normal_plan()
    changed = noisy(found, 0.2, 1)
    keep = cluster.seconds_L(present.slots_LRS, changed)
    moved = []
    for steps in (10, 10_000, 10_000_000):
        again = plan(changed, cluster, present=present, moving=Moving(steps=steps))
        gain_L = (keep - again.seconds_L) * steps
        assert (gain_L >= again.moved_L * cluster.move_seconds_per_expert).all()
        assert difference(present, again.placement).experts == again.moved_L.sum()
        moved.append(int(again.moved_L.sum()))
    assert moved[0] == 0
    assert moved == sorted(moved)
    assert moved[-1] > 0
    everything = difference(present, plan(changed, cluster).placement).experts
    assert moved[1] < everything


def test_a_new_hotspot_takes_the_spare_slots_of_experts_gone_cold():
    load = np.full((1, 8), 10.0)
    load[0, 0] = 80
    cluster = objective(12, 4, move_seconds=1000 / 45e9)
    present = plan(Demand.of_load(load, Choice(8, 1)), cluster).placement
    moved_on = np.roll(load, 3, axis=1)
    again = plan(Demand.of_load(moved_on, Choice(8, 1)), cluster, present=present)
    # Each node's tokens use a replica on their own node, so one replica per node is as good as five.
    assert again.placement.replicas_LE[0, 3] >= 3
    assert 2 <= again.moved_L[0] <= 5
    fresh = plan(Demand.of_load(moved_on, Choice(8, 1)), cluster)
    assert again.seconds_L[0] <= fresh.seconds_L[0] * 1.02


def test_a_present_of_another_shape_is_refused():
    found = Demand.of_load(np.ones((1, 8)), Choice(8, 1))
    with pytest.raises(InputError, match="8 experts on 8 ranks x 1 slots; the plan is for 1 of 8 on 8 x 2"):
        plan(found, objective(8, 4), 2, present=linear(1, 8, 8))
    with pytest.raises(InputError, match="8 experts per layer do not fit 4 ranks x 1 slots"):
        plan(Demand.of_load(np.ones((1, 8)), Choice(8, 1)), objective(4, 4))
