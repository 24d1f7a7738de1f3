"""Where requests live: uneven ones are spread evenly over the ranks, and get what each would get alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.runtime.forked import on_ranks
from tests.runtime.generation.test_generate import a_checkpoint, drained, engine_on
from tests.runtime.plain import SAMPLINGS, plain_model, plain_tokens
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.ledger import Ledger
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.batching import UNLIMITED, BatchLimits

RANKS = 4


def uneven_requests(number: int, longest: int) -> list[Request]:
    """Most are short, some have prompts of many times that."""
    draw = random.Random(7)
    return [
        Request(
            n,
            tuple(draw.randrange(96) for _ in range(longest if draw.random() < 0.2 else draw.randint(1, 12))),
            SAMPLINGS[n % len(SAMPLINGS)],
            Length(draw.randint(1, longest // 3), ignore_eos=True),
            stream=n,
        )
        for n in range(number)
    ]


def spread(requests: list[Request]) -> float:
    """The fullest rank's tokens over the mean, averaged over the steps while one request comes after the other."""
    limits = BatchLimits(UNLIMITED.kv_tokens_per_home, sequences_per_home=16, tokens_per_step=256)
    ledger = Ledger(RANKS, limits, (), together=True, in_pieces=True)
    found = []
    for step in range(3 * len(requests)):
        if step % 3 == 0:
            ledger.submit(requests[step // 3])
        plan = ledger.plan()
        ledger.commit(plan, [[0] * len(rank.sampled) for rank in plan.ranks], drain=False)
        held_R = [
            sum(ledger.held[n].position for group in ledger.decoding(rank).values() for n in group)
            for rank in range(RANKS)
        ]
        if any(held_R):
            found.append(max(held_R) / np.mean(held_R))
    return float(np.mean(found))


def test_the_policy_spreads_tokens_better_than_turns() -> None:
    requests = uneven_requests(200, longest=400)
    in_turn = [replace(request, home_rank=request.number % RANKS) for request in requests]
    assert spread(requests) < 1.5
    assert spread(in_turn) > 1.7


def test_uneven_requests_get_what_each_would_get_alone(tmp_path: Path) -> None:
    """Four ranks of a few sequences each; all are used."""
    folder = a_checkpoint(tmp_path / "checkpoint", "mixtral")
    requests = uneven_requests(20, longest=40)
    limits = BatchLimits(kv_tokens_per_home=120, sequences_per_home=3, tokens_per_step=16)

    def work(transport: Transport) -> tuple[dict[int, list[int]], int]:
        generator = Generator(engine_on(folder, transport), limits=limits)
        tokens: dict[int, list[int]] = {}
        for request in requests:
            generator.submit(request)
        drained(generator, tokens)
        return tokens, int(generator.load_LE["decode"].sum())

    model = plain_model(folder)
    expected = {request.number: plain_tokens(model, request) for request in requests}
    for tokens, decoded in on_ranks(work, RANKS, tmp_path):
        assert tokens == expected
        assert decoded > 0
