"""Rows of caches are kept, cut apart and joined: of every tensor, whichever way its sequences lie."""

from __future__ import annotations

import pytest
import torch
from benchmarks.architectures import tiny_configuration
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.runtime.versions import same_version
from wingspan.runtime.generation.caches import Caches

IDS_PN = torch.tensor([[5, 9, 17, 3, 8, 21, 30], [1, 2, 3, 4, 5, 6, 7], [40, 41, 42, 43, 44, 45, 46]])
NEW_P1 = torch.tensor([[11], [12], [13]])


@pytest.mark.parametrize(
    "name",
    [pytest.param("qwen4_exp_text", marks=same_version), "deepseek_v4", "deepseek_v32", "minimax", "gpt_oss"],
)
@torch.inference_mode()
def test_rows_go_on_as_if_they_were_alone(name: str) -> None:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(tiny_configuration(name), dtype=torch.float32).eval()
    alone = [next_logits(model, prefilled(model, [row]), [row])[0] for row in (0, 2)]
    caches = prefilled(model, [0, 1, 2])
    caches.keep([0, 2])
    apart = prefilled(model, [0, 1, 2])
    apart.keep([0, 2])
    halves = apart.begin([slice(0, 1), slice(1, 2)], 1)
    first, second = (next_logits_of(model, half, [row])[0] for half, row in zip(halves, (0, 2), strict=True))
    joined = prefilled(model, [0, 2])
    joined.begin([slice(0, 1), slice(1, 2)], 1)
    for got in (next_logits(model, caches, [0, 2]), [first, second], next_logits(model, joined, [0, 2])):
        for row_V, alone_V in zip(got, alone, strict=True):
            torch.testing.assert_close(row_V, alone_V, rtol=1e-4, atol=1e-5)


def prefilled(model: PreTrainedModel, rows: list[int]) -> Caches:
    caches = Caches()
    caches.begin([slice(0, len(rows))], IDS_PN.shape[1])
    out = model(input_ids=IDS_PN[rows], use_cache=True)
    caches.end([out.past_key_values], IDS_PN.shape[1])
    return caches


def next_logits(model: PreTrainedModel, caches: Caches, rows: list[int]) -> torch.Tensor:
    (cache,) = caches.begin([slice(0, len(rows))], 1)
    return next_logits_of(model, cache, rows)


def next_logits_of(model: PreTrainedModel, cache: object, rows: list[int]) -> torch.Tensor:
    at_P1 = torch.full((len(rows), 1), IDS_PN.shape[1])
    return model(input_ids=NEW_P1[rows], position_ids=at_P1, past_key_values=cache, use_cache=True).logits[
        :, -1
    ]
