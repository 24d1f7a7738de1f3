"""Prefix caching in the serving simulator: what it saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.simulate.serving.steps import grid_times, group
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.specs.requests import PrefixBlocks, Requests


def _twins(gap_seconds: float) -> Requests:
    blocks = PrefixBlocks(((1, 2, 3), (1, 2, 3)), tokens=100)
    return Requests(np.array([0.0, gap_seconds]), np.array([350, 350]), np.array([4, 4]), blocks)


@pytest.mark.parametrize("caching", [True, False])
def test_a_repeated_prompt_costs_only_what_is_new(caching: bool) -> None:
    spec = group(grid_times(), homes=1, kv_tokens=4000, sequences=8, budget=512)
    served = serve(_twins(100.0), replace(Fleet(spec), prefix_caching=caching))
    first, second = served.first_token_seconds_N - served.requests.arrival_seconds_N
    alone = serve(Requests(np.zeros(1), np.array([50]), np.array([4])), Fleet(spec))
    assert (second < 0.9 * first) == caching
    assert served.prefix_hit_share == (300 / 700 if caching else None)
    assert second >= alone.first_token_seconds_N[0] or not caching


def test_the_second_of_twins_waits_for_the_first_and_small_rooms_forget() -> None:
    spec = group(grid_times(), homes=1, kv_tokens=4000, sequences=8, budget=512)
    assert serve(_twins(0.0), Fleet(spec, prefix_caching=True)).prefix_hit_share == 300 / 700
    blocks = PrefixBlocks(((1, 2, 3), (4, 5, 6), (1, 2, 3)), tokens=100)
    requests = Requests(np.array([0.0, 100.0, 200.0]), np.full(3, 350), np.full(3, 4), blocks)
    shares = [
        serve(requests, Fleet(replace(spec, kv_tokens_per_home=room), prefix_caching=True)).prefix_hit_share
        for room in (4000, 400)
    ]
    assert shares == [300 / 1050, 0]


def test_a_home_that_holds_the_beginning_is_preferred_unless_it_is_busier_by_more() -> None:
    """Alone, the twin goes where its first part lies; where that home holds 600 tokens more, it does not."""
    spec = group(grid_times(), homes=2, kv_tokens=4000, sequences=8, budget=512)
    shares = []
    for busy in (1, 600):
        blocks = PrefixBlocks(((1, 2, 3), (4,), (1, 2, 3)), tokens=100)
        arrivals = np.array([0.0, 99.99, 100.0])
        requests = Requests(arrivals, np.array([350, busy, 350]), np.array([4, 200, 4]), blocks)
        served = serve(requests, Fleet(spec, prefix_caching=True))
        shares.append(served.prefix_hit_share)
    assert shares[0] == 300 / 701
    assert shares[1] == 0
