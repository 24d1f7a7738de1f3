"""Synthetic traces: reproducible, of any shape, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.routing.load import imbalance, imbalance_per_layer
from wingspan.routing.statistics import collect, distinct_nodes, expert_load, source_traffic
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import RoutingTrace, concatenate
from wingspan.routing.workloads import KINDS, planted_groups, workload

SHAPE = TraceShape(4096, layers=3, experts=32, top_k=4, ranks=16, request_tokens=16)


def make(kind: str, shape: TraceShape = SHAPE, seed: int = 5, **knobs: float) -> RoutingTrace:
    return concatenate(list(generate(shape, workload(kind, shape, seed, **knobs), seed)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)), tokens=st.integers(1, 300), layers=st.integers(1, 3),
    experts=st.integers(4, 40), top_k=st.integers(1, 3), ranks=st.integers(1, 50), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_any_shape(kind, tokens, layers, experts, top_k, ranks, seed):
    """The trace's own checks see to valid, distinct experts; here: the shape, and every token's top-k counted."""
    shape = TraceShape(tokens, layers, experts, top_k, ranks, request_tokens=7)
    knobs = {"groups": 1} if kind in ("communities", "source-affine") else {}
    trace = make(kind, shape, seed, **knobs)
    assert trace.experts_TLK.shape == (tokens, layers, top_k)
    assert (trace.num_experts, trace.num_ranks) == (experts, ranks)
    assert (expert_load(trace).sum(axis=1) == tokens * top_k).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_seeds_are_reproducible(kind):
    assert make(kind, seed=1) == make(kind, seed=1)
    assert make(kind, seed=1) != make(kind, seed=2)


def test_weights_are_met():
    """Top-1 draws in exact proportion to the weights."""
    shape = TraceShape(40_000, 1, 4, 1, 1)
    share = expert_load(make("power-law", shape))[0] / 40_000
    assert np.sort(share)[::-1] == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.01)


def test_balanced_is_exact():
    assert imbalance(expert_load(make("balanced"))) == 1.0
    odd = TraceShape(3 * 50, 2, 12, 8, 3)  # a deal takes 3 tokens: 24 cards, two decks
    assert imbalance(expert_load(make("balanced", odd))) == 1.0


def test_skewed_kinds_are_skewed():
    assert imbalance(expert_load(make("uniform"))) < 1.15
    assert imbalance(expert_load(make("power-law"))) > 3
    assert imbalance(expert_load(make("log-normal"))) > 2
    assert imbalance(expert_load(make("log-normal", sigma=0.0))) < 1.15
    assert imbalance(expert_load(make("hot-set"))) > 3


def test_hot_rank_burdens_one_rank_and_spread_hot_does_not():
    """Under the linear placement of 32 experts on 16 ranks."""
    by_rank = {
        kind: expert_load(make(kind)).reshape(3, 16, 2).sum(axis=2) for kind in ("hot-rank", "spread-hot")
    }
    assert (by_rank["hot-rank"].argmax(axis=1) == 0).all()
    assert (by_rank["hot-rank"].max(axis=1) > 5 * np.median(by_rank["hot-rank"], axis=1)).all()
    fewer = TraceShape(4096, 3, 32, 4, 2)
    halves = expert_load(make("spread-hot", fewer)).reshape(3, 2, 16).sum(axis=2)
    assert (imbalance_per_layer(halves) < 1.1).all()


def test_source_ragged_and_zero_leave_ranks_empty():
    tokens_R = np.bincount(make("source-ragged").home_rank_T, minlength=16)
    assert tokens_R.min() == 0
    assert tokens_R.max() > 3 * tokens_R.mean()
    idle = make("zero")
    assert (expert_load(idle)[:, :2] == 0).all()
    assert (expert_load(idle)[:, 2:] > 0).all()
    assert 0 not in idle.home_rank_T


def test_rotating_moves_and_burst_bursts():
    windows_WE = collect([make("rotating", turns=4)], 4096, num_windows=4).window_load_WLE[:, 0]
    assert len(set(windows_WE.argmax(axis=1).tolist())) == 4
    trace = make("burst", every=4)
    calm, wild = (
        imbalance(expert_load(trace.take((trace.step_T % 4 == 3) == burst))) for burst in (False, True)
    )
    assert calm < 1.3
    assert wild > 3


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_communities_keep_to_their_groups(noise):
    """A noise-free choice lies in one group; a noisy one lies where uniform routing would."""
    trace = make("communities", groups=4, noise=noise)
    group_LE = planted_groups(SHAPE, 5, 4)
    assert (np.bincount(group_LE[0]) == 8).all()
    one_group_L = distinct_nodes(trace, group_LE)[:, 1] / trace.num_tokens
    # Four uniform picks of 32 lie in one group of 8 with probability 4 C(8,4) / C(32,4) = 0.008.
    assert one_group_L == pytest.approx(1 - noise * (1 - 0.008), abs=0.03)


def test_source_affine_ties_ranks_to_groups():
    trace = make("source-affine", groups=4, noise=0.0)
    group_LE = planted_groups(SHAPE, 5, 4)
    source_LER = source_traffic(trace)
    for rank in range(16):
        groups_with_traffic = set(group_LE[0][source_LER[0, :, rank] > 0].tolist())
        assert groups_with_traffic == {rank // 4}


def test_planted_groups_come_with_the_seed():
    assert np.array_equal(planted_groups(SHAPE, 5, 4), planted_groups(SHAPE, 5, 4))
    assert not np.array_equal(planted_groups(SHAPE, 5, 4), planted_groups(SHAPE, 6, 4))


@pytest.mark.parametrize(
    ("kind", "knobs", "message"),
    [
        ("nonsense", {}, "unknown; known: uniform, power-law"),
        ("uniform", {"noise": 0.1}, "`noise` does nothing for uniform, which takes no option of its own"),
        ("hot-set", {"groups": 2}, "which takes `hot_share`"),
        ("communities", {"groups": 9}, "use at most 8 groups"),
        ("communities", {"groups": 0}, "`groups` 0: use 1 or more"),
        ("communities", {"noise": 1.5}, "`noise` 1.5: use a share"),
        ("power-law", {"exponent": float("nan")}, "power-law:nan: use a number from 0 to 8"),
        ("log-normal", {"sigma": float("inf")}, "log-normal:inf: use a number from 0 to 8"),
        ("source-affine", {"groups": 17}, "need as many ranks"),
        ("hot-set", {"hot_share": 1.0}, "use less than 1"),
    ],
)
def test_what_cannot_be_made_is_named(kind, knobs, message):
    with pytest.raises(InputError, match=message):
        make(kind, **knobs)


def test_bad_shapes_are_named():
    with pytest.raises(InputError, match="ranks = 0"):
        TraceShape(1, 1, 1, 1, 0)
    with pytest.raises(InputError, match="top-3 of 2"):
        TraceShape(1, 1, 2, 3, 1)
