"""Requests, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.specs.requests import PrefixBlocks, Requests, poisson_requests


def test_poisson_has_the_rate_the_lengths_and_the_spread_asked_for() -> None:
    drawn = poisson_requests(50.0, 20_000, 1000, 200, spread=0.5, seed=4)
    gaps = np.diff(drawn.arrival_seconds_N)
    assert drawn.rate_per_second == pytest.approx(50, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential: deviation equals mean
    for tokens, mean in ((drawn.prompt_tokens_N, 1000), (drawn.output_tokens_N, 200)):
        assert tokens.mean() == pytest.approx(mean, rel=0.03)
        assert tokens.std() / tokens.mean() == pytest.approx(0.5, rel=0.05)


def test_no_spread_makes_all_equal_and_a_seed_repeats() -> None:
    drawn = poisson_requests(1.0, 10, 7, 3, seed=2)
    assert set(drawn.prompt_tokens_N.tolist()) == {7}
    assert set(drawn.output_tokens_N.tolist()) == {3}
    again = poisson_requests(2.0, 10, 7, 3, seed=2)
    assert again.arrival_seconds_N * 2 == pytest.approx(drawn.arrival_seconds_N)


def test_another_rate_keeps_the_rhythm() -> None:
    drawn = poisson_requests(1.0, 100, 7, 3, seed=2)
    faster = drawn.at_rate(40.0)
    assert faster.rate_per_second == pytest.approx(40)
    assert np.diff(faster.arrival_seconds_N) == pytest.approx(
        np.diff(drawn.arrival_seconds_N) * drawn.rate_per_second / 40
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0, 10, 5, 5, 0.0), "rate 0.0"),
        ((float("nan"), 10, 5, 5, 0.0), "rate nan"),
        ((1.0, 0, 5, 5, 0.0), "0 requests"),
        ((1.0, 5, 5, 0, 0.0), "0 output"),
        ((1.0, 5, 5, 5, -1.0), "spread -1.0"),
    ],
)
def test_bad_arrivals_are_refused(arguments: tuple[float, int, int, int, float], words: str) -> None:
    *first, spread = arguments
    with pytest.raises(InputError, match=words):
        poisson_requests(*first, spread=spread)  # type: ignore[arg-type]


def test_requests_that_come_at_once_have_no_rhythm() -> None:
    crowd = Requests(np.zeros(3), np.ones(3, dtype=int), np.ones(3, dtype=int))
    with pytest.raises(InputError, match="one instant"):
        crowd.at_rate(1.0)


@given(st.integers(2, 3000), st.integers(0, 5))
def test_none_is_longer_than_it_is_cut_to_and_shorter_ones_stay(longest: int, seed: int) -> None:
    drawn = poisson_requests(1.0, 200, 500, 200, spread=1.0, seed=seed)
    cut = drawn.cut_to(longest)
    assert not cut.longer_than(longest).any()
    kept = ~drawn.longer_than(longest)
    assert (cut.prompt_tokens_N[kept] == drawn.prompt_tokens_N[kept]).all()
    assert (cut.output_tokens_N[kept] == drawn.output_tokens_N[kept]).all()


def test_a_shared_prefix_is_what_an_earlier_prompt_began_with() -> None:
    blocks = PrefixBlocks(((1, 2, 3), (1, 2, 4), (9, 2), (1,)), tokens=10)
    requests = Requests(np.arange(4.0), np.array([30, 25, 15, 10]), np.ones(4, dtype=int), blocks)
    # The first has whole blocks 1 and 2 before its last token, the second finds both, the third begins otherwise,
    # and the fourth must compute its last token, which is in block 1.
    assert requests.shared_prefix_share == 20 / 80


def test_every_request_has_its_blocks() -> None:
    with pytest.raises(InputError, match="1 lists of blocks for 2 requests"):
        Requests(np.zeros(2), np.ones(2, dtype=int), np.ones(2, dtype=int), PrefixBlocks(((1,),), 512))
