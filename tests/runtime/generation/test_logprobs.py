"""How likely the tokens of prompts are, however the prompts are computed: against plain transformers on each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runtime.generation.test_generate import a_checkpoint, engine_on
from tests.runtime.plain import plain_model
from wingspan.errors import InputError
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.ledger import TokenLogprobs
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.transport.transport import LocalTransport
from wingspan.schedule.batching import BatchLimits

PROMPTS = (
    (5, 9, 17, 3),
    (1,),
    tuple(range(30, 57)),
    (8, 9, 10, 11, 12),
    (7, 7),
    tuple(range(12)),
    (*range(9), 60, 61),
)
WITHOUT = (3,)
"""The request that does not want them."""
TOP = 2


@pytest.mark.parametrize(
    ("name", "schedule", "limits"),
    [
        ("mixtral", "sequential", BatchLimits(2**40, 16, 2**40)),
        ("mixtral", "two-batch", BatchLimits(2**40, 16, 2**40)),
        ("gpt_oss", "sequential", BatchLimits(2**40, 3, 10)),
        ("deepseek_v3", "sequential", BatchLimits(48, 6, 16)),
        ("minimax", "sequential", BatchLimits(2**40, 4, 16)),
    ],
)
def test_a_prompts_tokens_are_as_likely_as_plain_transformers_has_them(
    name: str, schedule: str, limits: BatchLimits, tmp_path: Path
) -> None:
    """All at once, in micro-batches, in pieces, begun again for want of room, and where lengths go apart."""
    folder = a_checkpoint(tmp_path / name, name)
    generator = Generator(
        engine_on(folder, LocalTransport()),
        {"prefill": flow_named(schedule)},
        limits=limits,
        prefix_bytes=10**7,
        block_tokens=4,
    )
    for number, ids in enumerate(PROMPTS):
        wants = number not in WITHOUT
        generator.submit(
            Request(
                number,
                ids,
                length=Length(14, ignore_eos=True),
                logprobs=TOP if wants else None,
                prompt_logprobs=wants,
            )
        )
    found: dict[int, dict[int, TokenLogprobs]] = {}
    preempted = 0
    while generator.unfinished:
        result = generator.step()
        preempted += result.preempted
        for number, part in result.prompt_logprobs.items():
            found.setdefault(number, {}).update(enumerate(part.tokens, part.begin))
    assert (preempted > 0) == (limits.kv_tokens_per_home == 48)
    model = plain_model(folder)
    assert set(found) == {n for n, ids in enumerate(PROMPTS) if n not in WITHOUT and len(ids) > 1}
    for number, told in found.items():
        _are_as_plain(model, PROMPTS[number], told)


@torch.inference_mode()
def _are_as_plain(model: torch.nn.Module, ids: tuple[int, ...], told: dict[int, TokenLogprobs]) -> None:
    logprobs_NV = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    assert sorted(told) == list(range(1, len(ids)))
    for at, one in told.items():
        before_V = logprobs_NV[at - 1]
        assert one.token == ids[at]
        assert one.logprob == pytest.approx(float(before_V[ids[at]]), abs=1e-4)
        assert [value for _, value in one.top] == pytest.approx(before_V.topk(TOP).values.tolist(), abs=1e-4)


def test_those_of_a_prompt_need_a_number_of_the_likeliest() -> None:
    with pytest.raises(InputError, match="prompt_logprobs needs logprobs"):
        Request(0, (1, 2), prompt_logprobs=True)
