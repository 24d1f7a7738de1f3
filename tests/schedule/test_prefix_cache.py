"""Prefix caching on one home: what is held, and what is forgotten first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wingspan.schedule.prefix_cache import PrefixCache, chained_blocks


def _pass(cache: PrefixCache, blocks: tuple[int, ...], kv_tokens: int) -> int:
    """A request comes, is computed and leaves; returns what of it was held."""
    held = cache.enter(0, blocks)
    cache.reserve(kv_tokens)
    cache.computed(0, blocks[held:])
    cache.reserve(-kv_tokens)
    cache.leave(0)
    return held


def test_the_longest_unused_are_forgotten_first_and_a_prompts_end_before_its_beginning() -> None:
    cache = PrefixCache(40, 10)
    assert _pass(cache, (1, 2), 20) == 0
    assert _pass(cache, (3, 4), 20) == 0
    assert _pass(cache, (1, 2), 20) == 2  # now 3 and 4 are the longest unused
    cache.reserve(30)  # room for one block is left
    assert [block in cache for block in (1, 2, 3, 4)] == [True, False, False, False]
    assert cache.take_forgotten() == [4, 3, 2]
    assert cache.take_forgotten() == []


def test_what_is_not_computed_yet_is_not_found_and_what_is_used_stays() -> None:
    cache = PrefixCache(40, 10)
    cache.reserve(40)
    assert cache.enter(0, (1, 2)) == 0
    assert cache.enter(1, (1, 2)) == 0
    cache.computed(0, (1, 2))
    assert 1 in cache
    cache.computed(1, (1, 2))
    cache.leave(0)
    assert 1 in cache
    assert cache.idle_tokens == 0
    cache.leave(1)
    assert 1 not in cache


def test_no_more_is_held_than_there_is_memory_for() -> None:
    cache = PrefixCache(2**62, 10)
    cache.limit_idle(30)
    assert _pass(cache, (1, 2, 3, 4), 40) == 0
    assert cache.idle_tokens == 30
    assert _pass(cache, (1, 2, 3, 4), 40) == 3


@given(st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=30), st.integers(4, 8))
def test_idle_blocks_never_take_more_than_is_left(prompts: list[list[int]], room: int) -> None:
    cache, held, reserved = PrefixCache(room * 10, 10), [], 0
    for request, prompt in enumerate(prompts):
        blocks, tokens = tuple(prompt), len(prompt) * 10
        while reserved + tokens > room * 10:
            done, size = held.pop(0)
            cache.reserve(-size)
            cache.leave(done)
            reserved -= size
        found = cache.enter(request, blocks)
        cache.reserve(tokens)
        assert cache.enter(request, blocks) == found
        cache.computed(request, blocks[found:])
        held.append((request, tokens))
        reserved += tokens
        assert cache.idle_tokens <= room * 10 - reserved
        assert all(block in cache for block in blocks)


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), max_size=20), st.integers(1, 5))
def test_blocks_are_equal_exactly_where_all_tokens_so_far_are(
    one: list[int], other: list[int], size: int
) -> None:
    first, second = chained_blocks(one, size), chained_blocks(other, size)
    assert len(first) == len(one) // size
    for n, (a, b) in enumerate(zip(first, second, strict=False)):
        assert (a == b) == (one[: (n + 1) * size] == other[: (n + 1) * size])
    assert chained_blocks(one, size, first[:2]) == first
