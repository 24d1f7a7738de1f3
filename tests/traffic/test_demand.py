"""The demand of a sample: rates per step, and how noise is told from structure."""

from __future__ import annotations

import numpy as np
import pytest

from tests.placement.examples import counted, demand, objective, trace
from wingspan.errors import InputError
from wingspan.routing.coactivation import expected_coactivation
from wingspan.routing.synthetic import TraceShape
from wingspan.traffic.demand import Demand, common
from wingspan.traffic.distinct import Choice
from wingspan.traffic.layers import Domains


def test_halves_that_agree_are_kept_and_halves_at_odds_dropped():
    expected = np.full((1, 2, 2), 5.0)
    wave = np.array([[[2.0, -2.0], [-1.0, 1.0]]])
    assert np.allclose(
        common([expected + wave, expected + wave], [expected, expected]), 2 * (expected + wave)
    )
    assert np.allclose(common([expected + wave, expected - wave], [expected, expected]), 2 * expected)
    assert np.allclose(common([expected, expected], [expected, expected]), 2 * expected)


def excess(kind: str, **knobs) -> float:
    """Co-activation beyond chance, as a share of all co-activation."""
    tokens = trace(kind, TraceShape(4000, 2, 32, 4, 16, request_tokens=4), **knobs)
    found = demand(tokens, objective(16, 4))
    chance = expected_coactivation(counted(tokens).coactivation_LEE) / len(np.unique(tokens.step_T))
    return float(np.abs(found.together_LEE - chance).sum() / chance.sum())


def test_chance_is_not_taken_for_company_and_communities_are():
    assert excess("uniform") < 0.03
    assert excess("communities", groups=4, noise=0.1) > 0.5


def test_rates_are_per_step_and_conserved():
    tokens = trace("log-normal", TraceShape(1024, 2, 16, 2, 8, request_tokens=16))
    found = demand(tokens, objective(8, 4))
    steps = len(np.unique(tokens.step_T))
    assert found.load_LE.sum() * steps == pytest.approx(1024 * 2 * 2)
    assert found.source_LEG.sum() * steps == pytest.approx(1024 * 2 * 2, rel=0.01)
    assert found.source_LEG.shape == (2, 16, 2)
    assert np.allclose(found.together_LEE, found.together_LEE.transpose(0, 2, 1))
    assert not np.einsum("lee->le", found.together_LEE).any()


def test_spare_nodes_hold_no_tokens():
    tokens = trace("uniform", TraceShape(256, 1, 8, 2, 8))
    assert demand(tokens, objective(12, 4)).source_LEG[:, :, 2].sum() == 0


def test_loads_alone_live_everywhere_alike():
    found = Demand.of_load([[3.0, 1.0]], Choice(2, 2))
    assert found.sources(2).tolist() == [[[1.5, 1.5], [0.5, 0.5]]]
    assert found.company()[0].tolist() == [[0, 0.75], [0.75, 0]]
    assert found.tokens_L.tolist() == [2.0]


def test_what_does_not_fit_is_named():
    tokens = counted(trace("uniform", TraceShape(64, 1, 8, 2, 8)))
    with pytest.raises(InputError, match="live on 8 ranks, the placement has 4; use 8 ranks"):
        Demand.of(tokens, tokens, Choice(8, 2), Domains(4, 4))
    with pytest.raises(InputError, match="0 steps"):
        Demand.of(tokens, tokens, Choice(8, 2), Domains(8, 4), steps=0)
