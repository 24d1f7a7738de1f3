"""Caches written in place: against rows kept one by one, and through the model against each sequence alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from tests.runtime.generation.test_generate import a_checkpoint, engine_on
from tests.runtime.plain import SAMPLINGS, plain_model, plain_tokens
from wingspan.runtime.generation.batches import Batch, SlotBatch
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.micro_batches import split_rows
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.slots import IN_PLACE
from wingspan.runtime.model.library import DummyLayer
from wingspan.runtime.model.padding import MASKED, padding_is_neutral
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.transport.transport import LocalTransport

WINDOW = 5


def a_cache() -> DynamicCache:
    """A layer of every kind."""
    cache = DynamicCache()
    cache.layers = [
        DynamicLayer(),
        DynamicSlidingWindowLayer(WINDOW),
        DummyLayer(),
        LinearAttentionLayer(),
        LinearAttentionAndFullAttentionLayer(),
        LinearAttentionAndSlidingWindowAttentionLayer(WINDOW),
    ]
    return cache


ATTENDS, IN_WINDOW, RECURS = (0, 1, 4, 5), (1, 5), (3, 4, 5)


def columns_of(numbers: list[int], begin: list[int], new: int) -> torch.Tensor:
    """Keys that say whose they are and where: (P, 1 head, new, 2 values)."""
    return torch.tensor(
        [[[[n, b + i] for i in range(new)]] for n, b in zip(numbers, begin, strict=True)], dtype=torch.float32
    )


def forward(cache: DynamicCache, numbers: list[int], begin: list[int], new: int) -> None:
    """What a model does with its cache; checks that every row sees its own past, and as many columns as the mask."""
    for layer in ATTENDS:
        length, _ = cache.get_mask_sizes(new, layer)
        keys = columns_of(numbers, begin, new)
        seen, values = cache.update(keys, keys * 2, layer)
        assert torch.equal(values, seen * 2)
        assert seen.shape[2] == length
        for row, (number, first) in enumerate(zip(numbers, begin, strict=True)):
            there = min(first + new, length)
            past = [[number, at] for at in range(first + new - there, first + new)]
            assert seen[row, 0, length - there :].tolist() == past
    for layer in RECURS:
        before = cache.layers[layer].recurrent_states[0]
        for row, (number, first) in enumerate(zip(numbers, begin, strict=True)):
            assert before is None or first == 0 or before[row].tolist() == [number, first]
        state = torch.tensor([[n, b + new] for n, b in zip(numbers, begin, strict=True)], dtype=torch.float32)
        cache.update_recurrent_state(state, layer)


def prefilled(numbers: list[int], tokens: int) -> Batch:
    batch = Batch(numbers)
    parts = batch.caches.begin([slice(0, len(numbers))], tokens)
    parts[0] = a_cache()
    forward(parts[0], numbers, [0] * len(numbers), tokens)
    batch.caches.end(parts, tokens)
    batch.cached_P = [tokens] * len(numbers)
    return batch


def decoded(slots: SlotBatch, micro_batches: int) -> None:
    parts = split_rows(len(slots), micro_batches)
    caches = slots.caches.begin(parts, 1)
    for rows, cache in zip(parts, caches, strict=True):
        if rows.stop > rows.start:
            forward(cache, slots.numbers[rows], slots.cached_P[rows], 1)
    slots.caches.end(caches, 1)
    slots.cached_P = [cached + 1 for cached in slots.cached_P]


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("join"), st.integers(1, 3), st.integers(1, 150)),
            st.tuples(st.just("leave"), st.integers(1, 3), st.integers(0, 99)),
            st.tuples(st.just("decode"), st.integers(1, 3), st.integers(1, 70)),
        ),
        max_size=12,
    )
)
def test_every_row_sees_its_own_past(steps: list[tuple[str, int, int]]) -> None:
    """Whoever joins and leaves, in however many micro-batches the rows go."""
    slots, next_number = SlotBatch(4), 0
    slots.join(prefilled([100], 3))
    for what, count, amount in steps:
        if what == "join":
            slots.join(prefilled(list(range(next_number, next_number + count)), amount))
            next_number += count
        elif what == "decode":
            for _ in range(amount):
                decoded(slots, micro_batches=count)
        elif count < len(slots):
            gone = {slots.numbers[(amount + i) % len(slots)] for i in range(count)}
            slots.keep(set(slots.numbers) - gone)
        decoded(slots, micro_batches=1)


def test_whatever_masks_padding_is_written_in_place() -> None:
    assert set(IN_PLACE) == MASKED


def test_nothing_moves_while_there_is_room() -> None:
    """Storage is written, not made anew: for some time after a step in which it grew, and when rows come again."""
    slots = SlotBatch(4)
    slots.join(prefilled([0, 1, 2, 3], 40))
    decoded(slots, 1)
    before = slots.caches.begin([slice(0, 4)], 1)[0].layers[0].keys.untyped_storage().data_ptr()
    for _ in range(15):
        decoded(slots, 1)
    slots.keep({0, 2})
    slots.join(prefilled([4, 5], 20))
    decoded(slots, 1)
    assert slots.numbers == [0, 2, 4, 5]
    after = slots.caches.begin([slice(0, 4)], 1)[0].layers[0].keys.untyped_storage().data_ptr()
    assert before == after


def test_storage_follows_what_is_needed() -> None:
    """One long sequence makes it grow; once that has left, it becomes small again. A window stays small."""
    slots = SlotBatch(4)
    slots.join(prefilled([0], 10))
    small = slots.caches.storage_bytes
    slots.join(prefilled([1], 2000))
    assert slots.caches.storage_bytes > 20 * small
    slots.keep({0})
    for _ in range(1100):
        decoded(slots, 1)
    slots.join(prefilled([2], 10))
    decoded(slots, 1)
    whole = slots.caches.begin([slice(0, 2)], 1)[0].layers
    assert whole[0].keys.untyped_storage().nbytes() <= 2 * 4 * 2 * 4 * 1.5 * (1110 + 64)
    assert whole[1].keys.untyped_storage().nbytes() <= 4 * 64 * 2 * 4


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        *(
            (name, "sequential")
            for name in ("mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "nemotron_h", "jamba", "lfm2_moe")
        ),
        *((name, "two-batch") for name in ("gpt_oss", "zaya")),
    ],
)
def test_sequences_that_come_and_go_at_random(name: str, schedule: str, tmp_path: Path) -> None:
    """Columns outgrow their storage and are moved; every text is what plain transformers gives that prompt alone."""
    draw = random.Random(f"{name}{schedule}")
    folder = a_checkpoint(tmp_path / name, name)
    engine = engine_on(folder, LocalTransport())
    assert padding_is_neutral(engine.model)
    generator = Generator(engine, {"prefill": flow_named(schedule), "decode": flow_named(schedule)})
    lengths = [draw.randint(1, 30) for _ in range(9)] + [70]
    draw.shuffle(lengths)
    requests = [
        Request(
            number,
            tuple(draw.randrange(96) for _ in range(length)),
            SAMPLINGS[number % len(SAMPLINGS)],
            Length(draw.randint(1, 25), ignore_eos=True),
        )
        for number, length in enumerate(lengths)
    ]
    waiting, tokens, gone = list(requests), dict[int, list[int]](), draw.randrange(len(requests))
    while waiting or generator.unfinished:
        for _ in range(draw.randint(0, 2)):
            if waiting:
                generator.submit(waiting.pop())
        if draw.random() < 0.1:
            generator.withdraw(gone)
        if generator.unfinished:
            for number, token in generator.step().tokens.items():
                tokens.setdefault(number, []).append(token)
    model = plain_model(folder)
    for request in requests:
        expected = plain_tokens(model, request)
        got = tokens.get(request.number, [])
        assert got == expected[: len(got) if request.number == gone else None]
