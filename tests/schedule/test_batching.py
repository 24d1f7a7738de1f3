"""The batching policy: nobody overtakes, homes never hold more than they may, and every prompt is computed once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.schedule.batching import Admission, BatchLimits
from wingspan.schedule.prompts import Piece, PromptQueue

LIMITS = BatchLimits(kv_tokens_per_home=100, sequences_per_home=3, tokens_per_step=8)


@pytest.mark.parametrize("field", ["kv_tokens_per_home", "sequences_per_home", "tokens_per_step"])
def test_a_limit_below_one_is_named(field):
    with pytest.raises(InputError, match=f"{field} is 0"):
        BatchLimits(
            **{
                **dict.fromkeys(("kv_tokens_per_home", "sequences_per_home"), 1),
                "tokens_per_step": 9,
                field: 0,
            }
        )


def test_a_budget_that_decoding_uses_up_is_refused():
    with pytest.raises(InputError, match="leaves none for prefill"):
        BatchLimits(kv_tokens_per_home=1, sequences_per_home=4, tokens_per_step=4)


def test_the_home_with_the_fewest_reserved_tokens_takes_the_next():
    admission = Admission(LIMITS, homes=2)
    for request, tokens in enumerate((50, 10, 10, 10)):
        admission.submit(request, tokens)
    assert admission.admit() == [0, 1, 2, 3]
    assert [admission.home_of(n) for n in range(4)] == [0, 1, 1, 1]


def test_a_prompt_weighs_twice_until_it_is_computed():
    """Once as what it will hold, once as what is to be computed before a newcomer's."""
    admission = Admission(LIMITS, homes=2)
    admission.submit(0, 20, prompt_tokens=20)
    admission.submit(1, 30, prompt_tokens=0)
    admission.submit(2, 5)
    assert admission.admit() == [0, 1, 2]
    assert [admission.home_of(n) for n in range(3)] == [0, 1, 1]
    admission.computes(Piece(0, 0, 12, left=8))
    admission.submit(3, 5)
    assert admission.admit() == [3]
    assert admission.home_of(3) == 0
    admission.release(3)
    admission.computes(Piece(0, 12, 8))
    admission.release(0)
    admission.submit(4, 34)
    admission.submit(5, 1)
    assert admission.admit() == [4, 5]
    assert [admission.home_of(n) for n in (4, 5)] == [0, 0]


def test_nobody_overtakes_one_that_does_not_fit():
    admission = Admission(LIMITS, homes=1)
    for request, tokens in enumerate((80, 30, 10)):
        admission.submit(request, tokens)
    assert admission.admit() == [0]
    assert len(admission) == 2
    admission.release(0)
    assert admission.admit() == [1, 2]


def test_those_admitted_last_give_way_and_come_first_again():
    admission = Admission(LIMITS, homes=2)
    for request, tokens in enumerate((30, 30, 30, 30)):
        admission.submit(request, tokens, home=0 if request < 3 else 1)
    admission.submit(9, 30, home=1)
    assert admission.admit() == [0, 1, 2, 3, 9]
    admission.submit(4, 5)
    admission.grow(0, 60)
    admission.grow(1, 60)
    assert admission.preempt() == [(2, 0), (1, 0)]
    assert admission.waiting == [1, 2, 4]
    assert admission.peak_kv_tokens == 90
    assert admission.admit() == []
    admission.release(0)
    assert admission.admit() == [1, 2, 4]
    assert [admission.home_of(n) for n in (1, 2, 4)] == [0, 0, 1]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=12))
def test_growing_requests_all_come_to_their_end(requests):
    """After `preempt` no home holds more than it has; who is there longest is never put back, so all end."""
    admission, left, now, order = Admission(LIMITS, homes=2), {}, {}, []
    for request, (prompt, answer) in enumerate(requests):
        left[request], now[request] = answer, prompt
        admission.submit(request, prompt)
    for _ in range(2000):
        gone = [request for request, _ in admission.preempt()]
        assert not order or order[0] not in gone
        order = [request for request in order if request not in gone] + admission.admit()
        held = [request for request in left if admission.holds(request)]
        for home in (0, 1):
            mine = [request for request in held if admission.home_of(request) == home]
            assert len(mine) <= 3
            assert sum(now[request] for request in mine) <= 100
        for request in held:
            if not left[request]:
                admission.release(request)
                del left[request]
                order.remove(request)
            else:
                now[request] += 1
                left[request] -= 1
                admission.grow(request, now[request])
        if not left:
            break
    assert not left


def test_a_request_may_be_bound_to_a_home():
    admission = Admission(LIMITS, homes=2)
    for request, home in enumerate((1, 1, None)):
        admission.submit(request, 20, home)
    assert admission.admit() == [0, 1, 2]
    assert [admission.home_of(n) for n in range(3)] == [1, 1, 0]


def test_one_that_is_withdrawn_blocks_nobody():
    admission = Admission(LIMITS, homes=1)
    for request, tokens in enumerate((80, 30, 10)):
        admission.submit(request, tokens)
    assert admission.admit() == [0]
    admission.withdraw(1)
    assert admission.admit() == [2]


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from([None, 0, 1, 2])), max_size=40), st.randoms())
def test_homes_never_hold_more_than_they_may(requests, random):
    """Whatever comes and goes: within the limits, each admitted once and in order, all in the end."""
    admission = Admission(LIMITS, homes=3)
    for request, (tokens, home) in enumerate(requests):
        admission.submit(request, tokens, home)
    held: list[int] = []
    order: list[int] = []
    while len(admission) or held:
        admitted = admission.admit()
        assert admitted or held
        order += admitted
        held += admitted
        homes = np.array([admission.home_of(request) for request in held])
        tokens = np.array([requests[request][0] for request in held])
        assert all(requests[n][1] in (None, home) for n, home in zip(held, homes, strict=True))
        for home in range(3):
            assert (homes == home).sum() <= LIMITS.sequences_per_home
            assert tokens[homes == home].sum() <= LIMITS.kv_tokens_per_home
        admission.release(held.pop(random.randrange(len(held))))
    assert order == list(range(len(requests)))


@given(st.lists(st.integers(1, 30), max_size=10), st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_every_token_of_a_prompt_is_computed_once_and_in_order(prompts, budgets, in_pieces):
    queue = PromptQueue(in_pieces=in_pieces)
    for request, tokens in enumerate(prompts):
        queue.add(request, tokens)
    computed: list[list[int]] = [[] for _ in prompts]
    finished = []
    steps = 0
    while len(queue):
        budget = budgets[steps % len(budgets)]
        pieces = queue.take(budget)
        assert pieces
        assert sum(p.tokens for p in pieces) <= budget or (not in_pieces and len(pieces) == 1)
        for piece in pieces:
            computed[piece.request] += range(piece.begin, piece.begin + piece.tokens)
            finished += [piece.request] * piece.is_last
            assert in_pieces or piece.is_last
        steps += 1
    assert computed == [list(range(tokens)) for tokens in prompts]
    assert finished == list(range(len(prompts)))


def test_a_piece_counts_the_pairs_that_its_attention_computes():
    queue = PromptQueue()
    queue.add(0, 5)
    whole = sum(query + 1 for query in range(5))
    first, rest = queue.take(2)[0], queue.take(9)[0]
    assert first.attended_pairs + rest.attended_pairs == whole
