"""A model as an object: each request gets what plain transformers gives it alone, on any number of ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.architectures import tiny_configuration, write_checkpoint

from tests.balance.inline_planner import InlinePlanner
from tests.cli.command import REPOSITORY
from tests.runtime.forked import on_ranks
from tests.runtime.plain import LENGTHS, SAMPLINGS, mixed_requests, plain_model, plain_tokens
from tests.runtime.test_run import SILENT, request
from wingspan.balance import controller
from wingspan.balance.settings import Rebalance
from wingspan.describe import Description, deployment_of
from wingspan.errors import InputError, RunError
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.llm import LLM
from wingspan.runtime.model.engine import describe
from wingspan.runtime.run import RunResult, run
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.rebalance_result import Migrated, RebalanceEvent
from wingspan.specs.placement import EMPTY, Placement

PROMPTS = ((5, 9, 17, 3), (1, 2), (7,), tuple(range(30, 43)), (8, 9, 10), (3, 1, 4, 1, 5, 9, 2, 6), (11, 12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_configuration("mixtral"), tmp_path_factory.mktemp("mixtral") / "model", 1)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[list[int]]:
    model = plain_model(folder)
    return [plain_tokens(model, wanted) for wanted in mixed_requests(PROMPTS)]


def no_rank_is_left() -> bool:
    return not psutil.Process().children()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_sampling_and_length_gives_what_plain_transformers_gives(ranks, folder, expected):
    """Twice, as the ranks stay; few at a time, so that they join and leave on their way."""
    with LLM(folder, ranks, sequences_per_rank=2, tokens_per_step=6) as llm:
        for _ in range(2):
            done = llm.generate(PROMPTS, SAMPLINGS, LENGTHS)
            assert [list(c.token_ids) for c in done] == expected
            assert [c.prompt_ids for c in done] == list(PROMPTS)
            assert done[2].finish_reason == "length"
    assert no_rank_is_left()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_run_draws_as_the_object_does(sampling, folder, tmp_path, monkeypatch):
    """And as plain transformers does, a prompt at a time; also where experts move meanwhile. All begin together."""
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)
    job = request(folder, 2, 3, PROMPTS, sampling=sampling, max_new_tokens=9)
    moving = replace(
        job,
        engine=replace(
            job.engine, placement=all_on_rank_0(folder), rebalance=Rebalance(every_steps=2, beat_steps=1)
        ),
    )

    def both(transport: Transport) -> list[RunResult | None]:
        return [run(transport, each, Tokenizer(folder), SILENT) for each in (job, moving)]

    results = on_ranks(both, 2, tmp_path)[0]
    model = plain_model(folder)
    for result in results:
        assert [o.token_ids for o in result.outputs] == [
            plain_tokens(model, Request(n, ids, sampling, Length(9), stream=n))
            for n, ids in enumerate(PROMPTS)
        ]
    assert any(isinstance(event, Migrated) for event in results[1].rebalance)


def test_experts_that_move_meanwhile_change_no_token(folder, expected, monkeypatch):
    """From a rank that holds all experts, while requests join and leave."""
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)
    with LLM(
        folder,
        2,
        placement=all_on_rank_0(folder),
        rebalance=Rebalance(every_steps=4, beat_steps=2),
        sequences_per_rank=2,
    ) as llm:
        tokens: dict[int, list[int]] = {}
        events: list[RebalanceEvent] = []
        for stream, prompt in enumerate((*PROMPTS, PROMPTS[5])):
            which = stream % len(PROMPTS)
            llm.submit(prompt, SAMPLINGS[which], LENGTHS[which], stream=which)
        while llm.unfinished:
            result = llm.step()
            events += result.balancing
            for number, token in result.tokens.items():
                tokens.setdefault(number, []).append(token)
    assert [tokens[n] for n in range(len(PROMPTS))] == expected
    moved = [event.experts_moved for event in events if isinstance(event, Migrated)]
    assert sum(moved) > 0, events
    assert no_rank_is_left()


def all_on_rank_0(folder: Path) -> Placement:
    shape = describe(folder).shape
    slots_LRS = np.full((len(shape.paths), 2, shape.num_experts), EMPTY)
    slots_LRS[:, 0] = np.arange(shape.num_experts)
    return Placement(slots_LRS, shape.num_experts)


def test_a_deployment_without_weights_runs_with_those_given(folder, expected, caplog):
    described = deployment_of(Description(str(folder), ranks=2, tokens_per_gpu=1, context=8))
    deployment = described.model_copy(update={"checkpoint": None})
    with pytest.raises(InputError, match="the deployment: names no folder of weights"):
        LLM(deployment)
    with LLM(deployment, checkpoint=folder, dtype="float32", row_precision="same") as llm:
        assert llm.slots == 2 * 16
        assert [list(c.token_ids) for c in llm.generate(PROMPTS, SAMPLINGS, LENGTHS)] == expected
    assert "the deployment plans decode of 1 tokens per GPU" in caplog.text


def test_requests_join_and_leave_between_steps(folder, expected):
    tokens: dict[int, list[int]] = {}

    def step() -> None:
        for number, token in llm.step().tokens.items():
            tokens.setdefault(number, []).append(token)

    with LLM(folder, 2) as llm:
        for stream, prompt in enumerate(PROMPTS):
            assert llm.submit(prompt, SAMPLINGS[stream], LENGTHS[stream], stream=stream) == stream
            step()
        gone = llm.submit((4, 4), length=Length(40, ignore_eos=True))
        step()
        llm.withdraw(gone)
        with pytest.raises(InputError, match="have not ended"):
            llm.generate([(1, 2)])
        while llm.unfinished:
            step()
        assert len(tokens.pop(gone)) == 1
        assert [tokens[n] for n in range(len(PROMPTS))] == expected
        assert llm.step().tokens == {}


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([(1, 2), ()], "prompt 1 is empty"),
        ([(1, 10**6)], "id 1000000 is outside the vocabulary"),
        ([(1, 2.5)], r"token ids are whole numbers, not \[1, 2.5\]"),
        (["text"], "has no tokenizer"),
        ([(1,) * 100], "exceeds the model's context|tokens of KV cache"),
    ],
)
def test_a_wrong_prompt_is_named_and_nothing_is_begun(prompts, words, folder):
    with LLM(folder, 1, kv_tokens_per_rank=90) as llm:
        with pytest.raises(InputError, match=words):
            llm.generate(prompts)
        assert not llm.unfinished
        assert len(llm.generate([(1, 2)], length=Length(3, ignore_eos=True))[0].token_ids) == 3


def test_ids_may_be_whole_numbers_of_any_library(folder):
    with LLM(folder, 1) as llm:
        plain, array = llm.generate([(5, 9, 17), np.array([5, 9, 17])], length=Length(4))
        assert plain.token_ids == array.token_ids
        assert array.prompt_ids == (5, 9, 17)


def test_as_many_samplings_as_prompts(folder):
    with LLM(folder, 1) as llm, pytest.raises(InputError, match="2 samplings for 1 prompts"):
        llm.generate([(1, 2)], [Sampling(), Sampling()])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ranks": 0}, "`ranks` 0"),
        ({"experts_per_rank": 1, "ranks": 2}, "experts"),
        ({"dtype": "float64"}, "`dtype` float64"),
        ({"schedule": "backwards"}, "`schedule` backwards"),
        ({"dispatcher": "pigeon"}, "`dispatcher` pigeon"),
        ({"transport": "pigeon"}, "`transport` pigeon"),
        ({"row_precision": "int3"}, "`row_precision` int3"),
        ({"tokens_per_step": 16}, "leaves none for prefill"),
        ({"kv_tokens_per_rank": 0}, "kv_tokens_per_home is 0"),
    ],
)
def test_a_wrong_value_is_named_before_any_rank_starts(values, words, folder):
    with pytest.raises(InputError, match=words):
        LLM(folder, **{"ranks": 2, **values})
    assert no_rank_is_left()


def test_rows_travel_in_the_precision_asked_for(folder):
    """Coarser rows give the model's probabilities, though not to the last bit."""

    def likeliest(row_precision: str) -> float:
        with LLM(folder, 2, dtype="float32", row_precision=row_precision) as llm:
            number = llm.submit(PROMPTS[0], logprobs=1)
            return llm.step().logprobs[number].top[0][1]

    same, coarse = likeliest("same"), likeliest("float8")
    assert same != coarse
    assert coarse == pytest.approx(same, abs=0.1)


def test_under_a_launcher_it_says_that_it_starts_its_ranks_itself(folder, monkeypatch):
    launched = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # fmt: skip
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="started 2 processes, but this one starts its ranks itself"):
        LLM(folder, 2)
    assert no_rank_is_left()


def test_a_rank_that_dies_is_named_and_the_others_end(folder):
    llm = LLM(folder, 2)
    llm.generate([(1, 2)], length=Length(2))
    os.kill(max(child.pid for child in psutil.Process().children()), signal.SIGKILL)
    with pytest.raises(RunError, match="rank 1 was killed by signal SIGKILL"):
        llm.generate([(1, 2)], length=Length(2))
    assert no_rank_is_left()
    with pytest.raises(RunError, match="have ended"):
        llm.generate([(1, 2)])
    llm.close()


def test_ranks_sleep_while_nobody_asks_and_end_with_the_object(folder):
    llm = LLM(folder, 2)
    llm.generate([(1, 2)], length=Length(2))
    ranks = psutil.Process().children()

    def seconds() -> float:
        return sum(rank.cpu_times().user + rank.cpu_times().system for rank in ranks)

    before = seconds()
    time.sleep(1.5)
    assert seconds() - before <= 0.05
    del llm
    assert no_rank_is_left()


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_say_what_they_did_since_the_last_look(ranks, folder):
    length = Length(4, ignore_eos=True)
    with LLM(folder, ranks) as llm:
        llm.generate(PROMPTS[:2], None, length)
        before = llm.take_figures()
        llm.generate(PROMPTS[2:], None, length)
        done = llm.take_figures()
        assert llm.take_figures().steps == 0
    # The last token of an answer is in no forward.
    tokens = sum(len(ids) for ids in PROMPTS[2:]) + len(PROMPTS[2:]) * 3
    choices = tokens * llm.config.num_experts_per_tok
    assert {int(load) for load in done.load_LE.sum(axis=1)} == {choices}
    assert {int(rows) for rows in done.rows_LR.sum(axis=1)} == {choices}
    assert (before.steps, done.steps, (before + done).steps) == (4, 4, 8)
    assert done.seconds > 0
    spent_R = sum(done.spent_R.values())
    assert spent_R == pytest.approx([done.seconds] * ranks, rel=1e-6)
    assert all((seconds_R >= 0).all() for seconds_R in done.spent_R.values())
    assert done.sent_RR.shape == (ranks, ranks)
    assert ((done.sent_RR - np.diag(np.diag(done.sent_RR))).sum(axis=1) > 0).all() == (ranks > 1)
    assert ((before + done).sent_RR == before.sent_RR + done.sent_RR).all()


def test_two_objects_live_and_end_beside_each_other(folder, expected):
    with LLM(folder, 1) as first:
        with LLM(folder, 2) as second:
            assert [list(c.token_ids) for c in second.generate(PROMPTS, SAMPLINGS, LENGTHS)] == expected
        assert [list(c.token_ids) for c in first.generate(PROMPTS, SAMPLINGS, LENGTHS)] == expected
    first.close()
    assert no_rank_is_left()


def test_the_front_door_knows_the_reference_architecture_and_gives_probabilities() -> None:
    """In a process of its own: nothing but the one import may be what registers the architecture."""
    code = (
        "from wingspan import LLM\n"
        "with LLM('models/tiny', ranks=2) as llm:\n"
        "    number = llm.submit('def main():', logprobs=2)\n"
        "    other = llm.submit('import ')\n"
        "    while llm.unfinished:\n"
        "        result = llm.step()\n"
        "        assert result.logprobs[number].token == result.tokens[number]\n"
        "        assert result.logprobs[number].top[0][0] == result.tokens[number], 'greedy takes the likeliest'\n"
        "        assert other not in result.logprobs\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=120)
