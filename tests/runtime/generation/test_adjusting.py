"""Penalties and biases against a slow count, grammars against a parser, probabilities against torch's own."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.command import REPOSITORY
from wingspan.errors import InputError
from wingspan.runtime.generation.adjusting import adjusted
from wingspan.runtime.generation.grammars import Grammars, json_grammar
from wingspan.runtime.generation.ledger import Continuation
from wingspan.runtime.generation.logprobs import logprobs_of
from wingspan.runtime.generation.requests import Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer

VOCABULARY = 258
END = 256
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "yy"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(REPOSITORY / "models" / "tiny")


def grammars(tokenizer: Tokenizer | None = None) -> Grammars:
    return Grammars(tokenizer and tokenizer.backend, VOCABULARY, [END])


ids = st.lists(st.integers(0, 9), min_size=1, max_size=8)
penalty = st.floats(-2, 2)


@given(
    ids, st.lists(st.integers(0, 9), max_size=8), penalty, penalty, st.floats(0.5, 2), st.integers(0, 2**32)
)
def test_penalties_and_biases_equal_a_count_token_by_token(
    prompt: list[int], told: list[int], presence: float, frequency: float, repetition: float, seed: int
) -> None:
    sampling = Sampling(
        presence_penalty=presence,
        frequency_penalty=frequency,
        repetition_penalty=repetition,
        logit_bias=((3, -5.0), (4, 2.5)),
    )
    held = [
        Continuation(Request(0, (1, 2)), [3]),
        Continuation(Request(1, tuple(prompt), sampling), told),
    ]
    given_PV = torch.randn(2, 10, generator=torch.Generator().manual_seed(seed))
    kept_PV = given_PV.clone()
    scores_PV = adjusted(given_PV, held, grammars())
    expected = kept_PV[1].tolist()
    for token in range(10):
        if token in prompt or token in told:
            expected[token] = (
                expected[token] / repetition if expected[token] > 0 else expected[token] * repetition
            )
        if token in told:
            expected[token] -= presence + frequency * told.count(token)
    expected[3] -= 5
    expected[4] += 2.5
    torch.testing.assert_close(scores_PV[0], kept_PV[0])
    torch.testing.assert_close(scores_PV[1], torch.tensor(expected))
    assert torch.equal(given_PV, kept_PV), "what was given is changed"


def test_logits_without_wishes_are_passed_through() -> None:
    logits_PV = torch.randn(1, 10)
    assert adjusted(logits_PV, [Continuation(Request(0, (1,)))], grammars()) is logits_PV


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_logits_the_answer_follows_its_grammar(tokenizer: Tokenizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answer = Continuation(Request(7, (1,), Sampling(grammar=json_grammar(json.dumps(SCHEMA)))))
    kept = grammars(tokenizer)
    while not answer.tokens or answer.tokens[-1] != END:
        assert len(answer.tokens) < 50
        # Begun again from its tokens so far, as after a move to another rank, it may go on with the same.
        again = grammars(tokenizer).allowed(answer)
        allowed = kept.allowed(answer)
        assert allowed is not None
        assert again is not None
        assert torch.equal(allowed, again)
        scores_PV = adjusted(torch.randn(1, VOCABULARY, generator=generator), [answer], kept)
        answer.tokens.append(int(scores_PV.argmax()))
    value = json.loads(tokenizer.decode(answer.tokens) or "")
    assert set(value) == {"a", "b"}
    assert 0 <= value["a"] <= 99
    assert value["b"] in ("x", "yy")


@pytest.mark.parametrize(
    "schema", ['{"type": "nothing"}', "[1", '{"type":"string","pattern":"(?=a)b"}', "1" * 200_000]
)
def test_a_schema_that_cannot_be_followed_is_refused_in_one_line(schema: str) -> None:
    with pytest.raises(InputError) as refused:
        json_grammar(schema)
    assert "\n" not in str(refused.value)
    assert "schema" in str(refused.value)


def test_probabilities_are_those_before_any_change() -> None:
    logits_PV = torch.randn(2, 10)
    held = [Continuation(Request(0, (1,))), Continuation(Request(1, (1,), logprobs=3))]
    found = logprobs_of(logits_PV, torch.tensor([4, 5]), held)
    logprobs_V = logits_PV[1].log_softmax(-1)
    assert set(found) == {1}
    assert found[1].token == 5
    assert found[1].logprob == pytest.approx(float(logprobs_V[5]))
    assert [token for token, _ in found[1].top] == logprobs_V.topk(3).indices.tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"presence_penalty": 2.5}, {"frequency_penalty": float("nan")}, {"repetition_penalty": 0.0},
        {"logit_bias": ((1, 101.0),)},
    ],
)  # fmt: skip
def test_values_outside_their_ranges_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        Sampling(**values)  # type: ignore[arg-type]
