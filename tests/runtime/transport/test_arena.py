"""Blocks lie at the lowest place that fits, apart from each other, until they are given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wingspan.runtime.transport.arena import Arena


def test_a_block_takes_the_lowest_place_that_fits():
    arena = Arena(100, 200)
    assert [arena.take(30, 1) for _ in range(4)] == [100, 130, 160, None]
    arena.discard(130)
    assert [arena.take(20, 1), arena.take(20, 1), arena.take(10, 1)] == [130, None, 150]
    assert arena.take(10, 1) == 190


def test_places_are_aligned():
    arena = Arena(100, 300)
    assert [arena.take(10, 64), arena.take(10, 64), arena.take(10, 1), arena.take(10, 64)] == [
        128,
        192,
        100,
        256,
    ]


def test_only_publications_that_all_have_finished_with_are_released():
    arena = Arena(0, 30)
    own, first, second = (arena.take(10, 1) for _ in range(3))
    assert arena.oldest is None
    arena.publish(second, 4)
    arena.publish(first, 6)
    assert arena.oldest == 4
    arena.release(5)
    assert arena.oldest == 6
    assert [arena.take(10, 1), arena.take(10, 1)] == [second, None]
    arena.discard(own)
    assert [arena.take(10, 1), arena.take(10, 1)] == [own, None]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "publish", "release", "discard"]), st.integers(1, 40), st.integers(0, 5)
        ),
        max_size=60,
    )
)
def test_blocks_never_overlap(steps):
    arena, ends, own, published, number = Arena(8, 150), {}, [], [], 0
    for action, size, align in steps:
        if action == "take":
            offset = arena.take(size, 2**align)
            if offset is not None:
                assert offset % 2**align == 0
                assert 8 <= offset <= 150 - size
                assert all(offset >= end or offset + size <= first for first, end in ends.items())
                ends[offset] = offset + size
                own.append(offset)
        elif action == "publish" and own:
            number += 1
            published.append(own.pop(size % len(own)))
            arena.publish(published[-1], number)
        elif action == "discard" and own:
            offset = own.pop()
            arena.discard(offset)
            del ends[offset]
        elif action == "release" and published:
            arena.release(number - len(published) + 1)
            del ends[published.pop(0)]
