"""The single-process reference: the same checkpoint in plain transformers, to compare a run against.

Shapes: N generated tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from wingspan.runtime.model.architecture import load_config

_FP32_TOLERANCE = 1e-5
"""Largest logit difference allowed in FP32, relative to the largest logit: what the order of summation alone does."""

_ROUNDING_FACTOR = 2.0
"""Below FP32, how much further from FP32 than plain transformers in the same dtype a run may be. Rounding flips
near-ties between experts, so two correct runs differ by much more than one rounding."""


@dataclass(frozen=True)
class Check:
    """How a run compares with the reference; differences are the largest over all logits."""

    dtype: str
    tokens_compared: int
    tokens_equal: bool | None
    """Whether the reference's greedy tokens are the same; None where tokens were sampled."""
    max_logit_difference: float
    """From plain transformers in the run's own dtype."""
    largest_logit: float
    difference_from_fp32: float
    """Of the run from plain transformers in FP32."""
    reference_difference_from_fp32: float
    """Of plain transformers in the run's dtype from itself in FP32: what rounding alone does."""

    @property
    def allowed_difference(self) -> float:
        """How far from FP32 the run may be."""
        fp32 = _FP32_TOLERANCE * max(1.0, self.largest_logit)
        return fp32 + _ROUNDING_FACTOR * self.reference_difference_from_fp32

    @property
    def passed(self) -> bool:
        """Logits as close to FP32 as the dtype lets them be, and in FP32 the same greedy tokens."""
        return self.difference_from_fp32 <= self.allowed_difference and (
            self.dtype != "float32" or self.tokens_equal is not False
        )


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
    got = [torch.stack(list(chosen_from)) for chosen_from in logits]
    exact = list(_reference_logits(folder, torch.float32, prompts, token_ids))
    same = exact if dtype == torch.float32 else list(_reference_logits(folder, dtype, prompts, token_ids))
    equal = all(
        same_NV.argmax(-1).tolist() == list(new) for same_NV, new in zip(same, token_ids, strict=True)
    )
    return Check(
        dtype=str(dtype).removeprefix("torch."),
        tokens_compared=sum(len(t) for t in token_ids),
        tokens_equal=equal if greedy else None,
        max_logit_difference=_difference(got, same),
        largest_logit=max(float(e.abs().max()) for e in exact),
        difference_from_fp32=_difference(got, exact),
        reference_difference_from_fp32=_difference(same, exact),
    )


@torch.inference_mode()
def _reference_logits(
    folder: Path, dtype: torch.dtype, prompts: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
) -> Iterator[torch.Tensor]:
    """For each sequence the logits (N, V), in FP32, from which its generated tokens would be chosen."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=load_config(folder),
        dtype=dtype,
        experts_implementation="eager",
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    ).eval()
    for prompt, new in zip(prompts, token_ids, strict=True):
        sequence = torch.tensor([[*prompt, *new[:-1]]])
        yield model(sequence).logits[0, len(prompt) - 1 :].float()


def _difference(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))
