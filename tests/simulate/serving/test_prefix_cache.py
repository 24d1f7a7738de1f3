"""Prefix caching: what is held, what is forgotten first, and what it saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulate.serving.steps import grid_times, group
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.prefix_cache import PrefixCache
from wingspan.specs.requests import PrefixBlocks, Requests


def _pass(cache: PrefixCache, blocks: tuple[int, ...], kv_tokens: int) -> int:
    held = cache.enter(blocks, kv_tokens)
    cache.computed(blocks, held)
    cache.leave(blocks, kv_tokens)
    return held


def test_the_longest_unused_are_forgotten_first_and_a_prompts_end_before_its_beginning() -> None:
    cache = PrefixCache(40, 10)
    assert _pass(cache, (1, 2), 20) == 0
    assert _pass(cache, (3, 4), 20) == 0
    assert _pass(cache, (1, 2), 20) == 2  # now 3 and 4 are the longest unused
    cache.enter((), 30)  # room for one block is left
    assert [block in cache for block in (1, 2, 3, 4)] == [True, False, False, False]


def test_what_is_not_computed_yet_is_not_found_and_what_is_used_stays() -> None:
    cache = PrefixCache(40, 10)
    assert cache.enter((1, 2), 20) == 0
    assert cache.enter((1, 2), 20) == 0
    cache.computed((1, 2), 0)
    assert 1 in cache
    cache.computed((1, 2), 0)
    cache.leave((1, 2), 20)
    assert 1 in cache
    assert cache.idle_tokens == 0


@given(st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=30), st.integers(4, 8))
def test_idle_blocks_never_take_more_than_is_left(prompts: list[list[int]], room: int) -> None:
    cache, held, reserved = PrefixCache(room * 10, 10), [], 0
    for prompt in prompts:
        blocks, tokens = tuple(prompt), len(prompt) * 10
        while reserved + tokens > room * 10:
            done, size = held.pop(0)
            cache.leave(done, size)
            reserved -= size
        cache.computed(blocks, cache.enter(blocks, tokens))
        held.append((blocks, tokens))
        reserved += tokens
        assert cache.idle_tokens <= room * 10 - reserved
        assert all(block in cache for block in blocks)


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


def test_twins_that_come_at_once_are_both_computed_and_small_rooms_forget() -> None:
    spec = group(grid_times(), homes=1, kv_tokens=4000, sequences=8, budget=512)
    assert serve(_twins(0.0), Fleet(spec, prefix_caching=True)).prefix_hit_share == 0
    blocks = PrefixBlocks(((1, 2, 3), (4, 5, 6), (1, 2, 3)), tokens=100)
    requests = Requests(np.array([0.0, 100.0, 200.0]), np.full(3, 350), np.full(3, 4), blocks)
    shares = [
        serve(requests, Fleet(replace(spec, kv_tokens_per_home=room), prefix_caching=True)).prefix_hit_share
        for room in (4000, 400)
    ]
    assert shares == [300 / 1050, 0]
