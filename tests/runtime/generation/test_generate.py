"""Requests that join and leave between steps get what each would get alone, over caches of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.architectures import tiny_configuration, write_checkpoint

from tests.runtime.forked import on_ranks
from tests.runtime.plain import mixed_requests, plain_model, plain_tokens
from wingspan.errors import InputError, RunError
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.model.architecture import build_on_meta
from wingspan.runtime.model.engine import Engine, default_placement, describe, load
from wingspan.runtime.model.padding import cuts_are_neutral, padding_is_neutral
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.schedule.batching import BatchLimits

CPU = torch.device("cpu")
PROMPTS = ((5, 9, 17, 3), (1, 2), (7,), tuple(range(30, 43)), (8, 9, 10), (3, 1, 4, 1, 5, 9, 2, 6))
TIGHT = BatchLimits(kv_tokens_per_home=90, sequences_per_home=3, tokens_per_step=5)
"""Two or three at a time, and long prompts in pieces."""


def engine_on(folder: Path, transport: Transport) -> Engine:
    model = describe(folder)
    ranks = transport.world.size
    slots = -(-model.shape.num_experts // ranks)
    return load(model, default_placement(model.shape, ranks, slots), transport, CPU)


def drained(generator: Generator, tokens: dict[int, list[int]], steps: int | None = None) -> None:
    """Step to the end, or so many times."""
    while generator.unfinished and steps != 0:
        for number, token in generator.step().tokens.items():
            tokens.setdefault(number, []).append(token)
        steps = None if steps is None else steps - 1


def in_three_waves(generator: Generator) -> dict[int, list[int]]:
    """The tokens of six requests that join two by two, and of one that is withdrawn on its way."""
    requests, tokens = mixed_requests(PROMPTS), dict[int, list[int]]()
    gone = Request(77, (4, 4, 4), length=Length(50))
    for request in (*requests[:2], gone):
        generator.submit(request)
    drained(generator, tokens, steps=4)
    for request in requests[2:4]:
        generator.submit(request)
    drained(generator, tokens, steps=3)
    generator.withdraw(77)
    for request in requests[4:]:
        generator.submit(request)
    drained(generator, tokens)
    del tokens[77]
    return tokens


def alone(folder: Path) -> dict[int, list[int]]:
    model = plain_model(folder)
    return {request.number: plain_tokens(model, request) for request in mixed_requests(PROMPTS)}


def a_checkpoint(folder: Path, name: str) -> Path:
    return write_checkpoint(tiny_configuration(name), folder, seed=1)


@pytest.mark.parametrize(
    "name",
    [
        "mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "nemotron_h", "jamba", "zaya", "lfm2_moe",
        "deepseek_v4", "deepseek_v32", "minimax",
    ],
)  # fmt: skip
def test_who_joins_and_leaves_gets_what_it_would_get_alone(name: str, tmp_path: Path) -> None:
    """One rank, everybody admitted at once; and few at a time, prompts in pieces where caches allow."""
    folder = a_checkpoint(tmp_path / name, name)
    engine, expected = engine_on(folder, LocalTransport()), alone(folder)
    assert in_three_waves(Generator(engine)) == expected
    assert in_three_waves(Generator(engine, limits=TIGHT)) == expected


CROWDED = BatchLimits(kv_tokens_per_home=40, sequences_per_home=4, tokens_per_step=9)
"""All of the longest answer's tokens fit, but not those of four."""


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("mixtral", 1), ("qwen3_next", 1), ("lfm2_moe", 1), ("deepseek_v4", 1), ("gpt_oss", 3)],
)
def test_who_is_put_back_for_want_of_room_gets_the_same(name: str, ranks: int, tmp_path: Path) -> None:
    """Its prompt and the tokens so far are computed again; with draws by chance, and while others come and leave."""
    folder = a_checkpoint(tmp_path / "checkpoint", name)
    lengths = (25, 20, 27, 18, 24, 9)
    requests = [
        Request(number, request.ids, request.sampling, Length(new, ignore_eos=True), number, home_rank=0)
        for number, (request, new) in enumerate(zip(mixed_requests(PROMPTS), lengths, strict=True))
    ]

    def work(transport: Transport) -> tuple[dict[int, list[int]], int]:
        generator = Generator(engine_on(folder, transport), limits=CROWDED)
        tokens, preempted = dict[int, list[int]](), 0
        for request in requests:
            generator.submit(request)
        while generator.unfinished:
            result = generator.step()
            preempted += result.preempted
            for number, token in result.tokens.items():
                tokens.setdefault(number, []).append(token)
        return tokens, preempted

    model = plain_model(folder)
    expected = {request.number: plain_tokens(model, request) for request in requests}
    for tokens, preempted in on_ranks(work, ranks, tmp_path):
        assert tokens == expected
        assert preempted >= 2


def test_who_was_put_back_is_not_drained(tmp_path: Path) -> None:
    """It has begun, so it goes on to its end; who never began does not."""
    generator = Generator(
        engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport()), limits=CROWDED
    )
    for number in range(5):
        generator.submit(Request(number, (5, 6), length=Length(30, ignore_eos=True)))
    preempted, finished = 0, dict[int, str]()
    while generator.unfinished:
        result = generator.step()
        preempted += result.preempted
        finished |= result.finished
        if preempted:
            generator.drain()
    assert finished == {0: "length", 1: "length", 2: "drained", 3: "drained", 4: "drained"}


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotations_that_follow_the_longest_sequence_follow_no_other(kind: str, tmp_path: Path) -> None:
    """Alone, each in a model of its own: plain transformers' remember how long a sequence was."""
    config = tiny_configuration("mixtral")
    config.head_dim = config.hidden_size // config.num_attention_heads
    half = config.head_dim // 2
    config.max_position_embeddings = 64 if kind == "longrope" else 8
    config.rope_parameters = {
        "dynamic": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
        "longrope": {
            "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * half,
            "long_factor": [4.0] * half, "factor": 8.0, "original_max_position_embeddings": 8,
        },
    }[kind]  # fmt: skip
    folder = write_checkpoint(config, tmp_path / "checkpoint", seed=1)
    expected = {r.number: plain_tokens(plain_model(folder), r) for r in mixed_requests(PROMPTS)}
    engine = engine_on(folder, LocalTransport())
    assert not padding_is_neutral(engine.model)
    assert in_three_waves(Generator(engine)) == expected
    assert in_three_waves(Generator(engine, limits=TIGHT)) == expected


@pytest.mark.parametrize("name", ["mixtral", "minimax"])
@pytest.mark.parametrize(
    ("ranks", "schedule"), [(2, "two-batch"), (3, "sequential"), (3, "chunks:2"), (3, "two-batch")]
)
def test_on_any_number_of_ranks_and_in_any_order(
    name: str, ranks: int, schedule: str, tmp_path: Path
) -> None:
    """Homes are chosen by the policy; some ranks have no tokens in many steps."""
    folder = a_checkpoint(tmp_path / "checkpoint", name)
    flow = flow_named(schedule)

    def work(transport: Transport) -> dict[int, list[int]]:
        generator = Generator(engine_on(folder, transport), {"prefill": flow, "decode": flow}, limits=TIGHT)
        return in_three_waves(generator)

    expected = alone(folder)
    assert on_ranks(work, ranks, tmp_path) == [expected] * ranks


def test_a_sequence_that_has_ended_costs_nothing(tmp_path: Path) -> None:
    """Rows are counted where the model embeds them: prompts with their padding, then one for each token to come."""
    engine = engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport())
    rows: list[int] = []
    engine.model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, inputs: rows.append(inputs[0].numel())
    )
    generator = Generator(engine)
    for number, new in enumerate((2, 30, 5)):
        generator.submit(Request(number, (7, 8, 9), length=Length(new, ignore_eos=True)))
    drained(generator, {})
    assert rows == [9, *[3] * 1, *[2] * 3, *[1] * 25]
    assert int(generator.load_LE["decode"][0].sum()) == sum(rows[1:]) * engine.shape.top_k
    assert generator.cache_bytes > 0


def test_ranks_without_work_compute_no_token(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path / "checkpoint", "mixtral")

    def work(transport: Transport) -> list[int]:
        generator = Generator(engine_on(folder, transport))
        generator.submit(Request(0, (5, 6), length=Length(4, ignore_eos=True), home_rank=1))
        drained(generator, {})
        return [int(load_LE.sum()) for load_LE in generator.load_LE.values()]

    loads = on_ranks(work, 3, tmp_path)
    assert loads[0] == loads[2] == [0, 0]
    assert loads[1][0] * 3 == loads[1][1] * 2


def test_which_caches_allow_what() -> None:
    """Recurrent states mask padding, but do not take several tokens at once behind others."""
    found = {}
    for name in ("mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "jamba", "minimax"):
        model = build_on_meta(tiny_configuration(name), torch.float32)
        found[name] = padding_is_neutral(model), cuts_are_neutral(model)
    assert found == {
        "mixtral": (True, True),
        "gpt_oss": (True, True),
        "deepseek_v3": (True, True),
        "qwen3_next": (True, False),
        "jamba": (True, False),
        "minimax": (False, False),
    }


def test_one_rank_s_word_is_enough_to_drain(tmp_path: Path) -> None:
    """Those who are being continued go on to their end; those who wait end without a token."""
    folder = a_checkpoint(tmp_path / "checkpoint", "mixtral")
    few = BatchLimits(kv_tokens_per_home=100, sequences_per_home=1, tokens_per_step=9)

    def work(transport: Transport) -> list[StepResult]:
        generator = Generator(engine_on(folder, transport), limits=few)
        for number in range(3):
            generator.submit(Request(number, (5, 6), length=Length(2, ignore_eos=True)))
        if transport.world.rank == 1:
            generator.drain()
        results = []
        while generator.unfinished:
            results.append(generator.step())
        return results

    first, last = on_ranks(work, 2, tmp_path)[0]
    assert first.finished == {2: "drained"}
    assert last.finished == {0: "length", 1: "length"}
    assert list(first.tokens) == [0, 1]


def test_ranks_that_were_told_different_things_say_so(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path / "checkpoint", "mixtral")

    def work(transport: Transport) -> None:
        generator = Generator(engine_on(folder, transport))
        generator.submit(Request(0, (5, 6) if transport.world.rank else (5, 6, 7), home_rank=0))
        generator.step()

    with pytest.raises(RunError, match="give all ranks the same requests"):
        on_ranks(work, 2, tmp_path)


def test_what_never_fits_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    generator = Generator(
        engine_on(a_checkpoint(tmp_path / "checkpoint", "mixtral"), LocalTransport()), limits=TIGHT
    )
    with pytest.raises(InputError, match=r"prompt 3 may need 92 tokens .* room for 90"):
        generator.submit(Request(3, (1, 2), length=Length(90)))
    assert not generator.unfinished
    generator.submit(Request(3, (1, 2)))
    with pytest.raises(InputError, match="request 3 is being served already"):
        generator.submit(Request(3, (1, 2)))
