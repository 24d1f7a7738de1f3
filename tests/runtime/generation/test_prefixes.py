"""What sequences share is computed once, and every token is what it would be if each were computed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from benchmarks.architectures import tiny_configuration
from transformers import AutoModelForCausalLM

from tests.runtime.forked import on_ranks
from tests.runtime.generation.test_generate import a_checkpoint, engine_on
from tests.runtime.plain import SAMPLINGS, plain_model, plain_tokens
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.model.padding import why_no_prefix_caching
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.schedule.batching import UNLIMITED, BatchLimits

MUCH = 10**9
ROOMY = BatchLimits(UNLIMITED.kv_tokens_per_home, sequences_per_home=5, tokens_per_step=40)
TIGHT = BatchLimits(kv_tokens_per_home=100, sequences_per_home=4, tokens_per_step=9)
"""Prompts in pieces, and sequences are put back and begun again."""


@dataclass
class Told:
    """What a generator said."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)
    preempted: int = 0


def at_random(generator: Generator, requests: list[Request], draw: random.Random) -> Told:
    """Requests come when chance wants it; one is withdrawn on its way."""
    told, waiting = Told(), list(reversed(requests))
    gone = Request(999, requests[0].ids, length=Length(30, ignore_eos=True))
    generator.submit(gone)
    while waiting or generator.unfinished:
        for _ in range(draw.randint(0, 2)):
            if waiting:
                generator.submit(waiting.pop())
        if draw.random() < 0.1:
            generator.withdraw(999)
        if not generator.unfinished:
            continue
        result = generator.step()
        told.preempted += result.preempted
        told.cached |= result.cached
        for number, token in result.tokens.items():
            told.tokens.setdefault(number, []).append(token)
        for number, one in result.logprobs.items():
            told.logprobs.setdefault(number, []).append(one)
    told.tokens.pop(999, None)
    told.cached.pop(999, None)
    return told


def family(draw: random.Random, number: int = 11) -> list[Request]:
    """Prompts that begin alike, some the same as another or longer by what it answers, some with several answers."""
    trunk = [draw.randrange(96) for _ in range(40)]
    requests: list[Request] = []
    for n in range(number):
        own = [draw.randrange(96) for _ in range(draw.randint(0, 9))]
        ids = trunk[: draw.choice((3, 12, 24, 31, 40))] + own
        if requests and draw.random() < 0.3:
            ids = list(requests[-1].ids)
        length = Length(draw.randint(1, 18), ignore_eos=True)
        requests.append(Request(n, tuple(ids), SAMPLINGS[n % len(SAMPLINGS)], length, stream=n))
    return requests


@pytest.mark.parametrize("limits", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("mixtral", "sequential"),
        ("gpt_oss", "sequential"),
        ("deepseek_v3", "sequential"),
        ("gpt_oss", "two-batch"),
    ],
)
def test_tokens_are_what_they_are_alone(
    name: str, schedule: str, limits: BatchLimits, tmp_path: Path
) -> None:
    """Windows, full attention, MLA; whoever comes and goes, is put back, and in whatever pieces."""
    folder = a_checkpoint(tmp_path / name, name)
    engine, model = engine_on(folder, LocalTransport()), plain_model(folder)
    flows = {"prefill": flow_named(schedule), "decode": flow_named(schedule)}
    found = put_back = 0
    for seed in range(2):
        draw = random.Random(f"{name}{seed}")
        requests = family(draw)
        generator = Generator(engine, flows, limits=limits, prefix_bytes=MUCH, block_tokens=4)
        told = at_random(generator, requests, draw)
        assert told.tokens == {request.number: plain_tokens(model, request) for request in requests}
        assert set(told.cached) == set(told.tokens)
        assert all(told.cached[request.number] < len(request.ids) for request in requests)
        found += sum(told.cached.values())
        put_back += told.preempted
    assert found > 60
    assert (put_back > 0) == (limits is TIGHT)


def test_answers_with_the_same_prompt_are_prefilled_once(tmp_path: Path) -> None:
    """Even where all come at once: the others wait for the first, and then compute a token each."""
    engine = engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport())
    generator = Generator(engine, limits=ROOMY, prefix_bytes=MUCH, block_tokens=4)
    for stream in range(4):
        generator.submit(Request(stream, tuple(range(33)), length=Length(5, ignore_eos=True), stream=stream))
    first, second = generator.step(), generator.step()
    assert list(first.tokens) == [0]
    assert sorted(second.tokens) == [0, 1, 2, 3]
    assert first.cached | second.cached == {0: 0, 1: 32, 2: 32, 3: 32}
    assert int(generator.load_LE["prefill"][0].sum()) == (33 + 3) * engine.shape.top_k


def test_a_conversation_goes_on_where_its_answer_ended(tmp_path: Path) -> None:
    engine = engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport())
    generator = Generator(engine, limits=ROOMY, prefix_bytes=MUCH, block_tokens=4)
    first = at_random(
        generator, [Request(0, (5, 6, 7), length=Length(30, ignore_eos=True))], random.Random(1)
    )
    again = (5, 6, 7, *first.tokens[0])
    told = at_random(generator, [Request(1, (*again, 9), length=Length(2))], random.Random(1))
    assert told.cached == {1: 32}


def test_old_blocks_go_where_memory_ends(tmp_path: Path) -> None:
    """Room for some prompts: the latest is found again, the first is not; memory stays within its limit."""
    engine = engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport())
    measured = Generator(engine, limits=ROOMY, prefix_bytes=MUCH, block_tokens=4)
    one = [Request(0, tuple(range(33)), length=Length(1))]
    at_random(measured, one, random.Random(2))
    prefixes = measured._prefixes
    assert prefixes is not None
    most_bytes = prefixes.token_bytes * 80
    generator = Generator(engine, limits=ROOMY, prefix_bytes=most_bytes, block_tokens=4)
    prompts = [tuple((n + i) % 96 for i in range(33)) for n in range(20, 60, 10)]
    cached = []
    for number, ids in enumerate([*prompts, prompts[-1], prompts[0]]):
        generator.submit(Request(number, ids, length=Length(2, ignore_eos=True)))
        while generator.unfinished:
            cached += generator.step().cached.values()
    assert cached == [0, 0, 0, 0, 32, 0]
    assert generator._prefixes is not None
    generator._prefixes.forget()
    assert generator._prefixes.size_bytes <= most_bytes


def test_logprobs_are_those_without(tmp_path: Path) -> None:
    engine = engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport())
    requests = [
        Request(n, tuple(range(20 + n % 2)), length=Length(6, ignore_eos=True), logprobs=3) for n in range(4)
    ]
    told = [
        at_random(
            Generator(engine, limits=ROOMY, prefix_bytes=each, block_tokens=4), requests, random.Random(4)
        )
        for each in (0, MUCH)
    ]
    assert sum(told[1].cached.values()) > 0
    assert not told[0].cached
    for number, without in told[0].logprobs.items():
        for one, other in zip(told[1].logprobs[number], without, strict=True):
            assert one.token == other.token
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in one.top] == [token for token, _ in other.top]


def test_a_rank_that_began_it_goes_on_with_it(tmp_path: Path) -> None:
    """On three ranks, every one with blocks of its own; requests go where their beginning lies."""
    folder = a_checkpoint(tmp_path / "checkpoint", "gpt_oss")
    requests = family(random.Random(5), 20)

    def work(transport: Transport) -> Told:
        generator = Generator(engine_on(folder, transport), limits=TIGHT, prefix_bytes=MUCH, block_tokens=4)
        return at_random(generator, requests, random.Random(6))

    model = plain_model(folder)
    expected = {request.number: plain_tokens(model, request) for request in requests}
    for told in on_ranks(work, 3, tmp_path):
        assert told.tokens == expected
        assert sum(told.cached.values()) > 200


def test_which_models_can() -> None:
    """Recurrent states, indices and compressed entries are no rows of tokens; a window must hold a block."""
    found = {}
    for name in ("mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "jamba", "minimax", "deepseek_v32"):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(tiny_configuration(name))
        found[name] = why_no_prefix_caching(model, 4), why_no_prefix_caching(model, 16)
    more = "its caches hold more than keys and values of each token"
    window = "its window of 6 tokens is no longer than a block of 16"
    assert found == {
        "mixtral": (None, window),
        "gpt_oss": (None, window),
        "deepseek_v3": (None, None),
        **dict.fromkeys(("qwen3_next", "jamba", "minimax", "deepseek_v32"), (more, more)),
    }
