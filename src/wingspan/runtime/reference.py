"""The single-process reference: the same checkpoint in plain transformers, to compare a run against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest logit difference allowed, relative to the largest logit: what the order of summation alone does."""


@dataclass(frozen=True)
class Check:
    """How a run compares with the reference."""

    dtype: str
    tokens_compared: int
    tokens_equal: bool | None
    max_logit_difference: float
    largest_logit: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Logits within tolerance, and in FP32 the same greedy tokens."""
        logits_close = self.max_logit_difference <= self.tolerance * max(1.0, self.largest_logit)
        return logits_close and (self.tokens_equal is not False or self.dtype != "float32")


@torch.inference_mode()
def check(
    folder: Path,
    dtype: torch.dtype,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    logits: Sequence[Sequence[torch.Tensor]],
    *,
    greedy: bool,
) -> Check:
    """Run every sequence through plain transformers, alone and unpadded, and compare.

    Args:
        folder: the checkpoint.
        dtype: the run's.
        prompts: ids of each prompt.
        token_ids: what the run generated for each.
        logits: what each of those tokens was chosen from, (V,) each.
        greedy: whether the run took the largest logit each time (then the tokens are compared too).
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager").eval()
    worst = largest = 0.0
    equal = True
    for prompt, new, chosen_from in zip(prompts, token_ids, logits, strict=True):
        sequence = torch.tensor([[*prompt, *new[:-1]]])
        expected_NV = model(sequence).logits[0, len(prompt) - 1 :].float()
        got_NV = torch.stack(list(chosen_from))
        worst = max(worst, float((expected_NV - got_NV).abs().max()))
        largest = max(largest, float(expected_NV.abs().max()))
        equal &= expected_NV.argmax(-1).tolist() == list(new)
    return Check(
        dtype=str(dtype).removeprefix("torch."),
        tokens_compared=sum(len(t) for t in token_ids),
        tokens_equal=equal if greedy else None,
        max_logit_difference=worst,
        largest_logit=largest,
        tolerance=_TOLERANCE[dtype],
    )
