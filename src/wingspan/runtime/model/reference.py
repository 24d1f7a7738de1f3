"""The single-process reference: the same checkpoint in plain transformers, to compare a run against.

The reference keeps transformers' own cache and takes the run's tokens one by one, a prompt at a time: where a model's
cached and uncached logits differ by more than rounding, the cached ones are what generation means.

Shapes: N generated tokens (of a sequence, or of all), V vocabulary, M variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from wingspan.runtime.model.architecture import class_of, load_config
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.padding import forget_lengths, rotations_by_length

_FP32_TOLERANCE = 1e-5
"""Largest logit difference allowed in FP32, relative to the largest logit: what the order of summation alone does."""

_ORDER_LIMIT = 1e-3
"""So far apart, relative to the largest logit, plain transformers' cached and uncached FP32 logits can still be the
same sums in another order (chunked scans for recurrent steps); further apart they mean different things."""

_ROUNDING_FACTOR = 2.0
"""How much further than rounding takes plain transformers a run may be."""

_VARIANTS = 8
"""Passes with embeddings rounded another way. Rounding flips near-ties between experts or indexed keys, so two correct
runs differ by much more than one rounding, and one sample of it says little."""


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
    """How far the run is from plain transformers in FP32."""
    rounding_difference: float
    """What rounding and the order of sums do to plain transformers' logits: the most of all variants looked at."""
    typical_difference_from_fp32: float
    """How far the run is as a rule: the median over its tokens of each token's largest difference.

    Near-ties flip seldom, a wrong model always.
    """
    typical_rounding_difference: float
    """How far plain transformers are as a rule: the most of all variants."""
    not_finite: int
    """Logits of the run that are NaN or infinite where the reference's are not."""

    @property
    def allowed_difference(self) -> float:
        """How far from FP32 the run may be."""
        return self._allowed(self.rounding_difference)

    @property
    def passed(self) -> bool:
        """Logits as close to FP32 as the dtype lets them be, and in FP32 the same greedy tokens."""
        # Not "unless it is more": NaN must not pass.
        return (
            self.not_finite == 0
            and self.difference_from_fp32 <= self.allowed_difference
            and self.typical_difference_from_fp32 <= self._allowed(self.typical_rounding_difference)
            and (self.dtype != "float32" or self.tokens_equal is not False)
        )

    def _allowed(self, rounding: float) -> float:
        return _FP32_TOLERANCE * max(1.0, self.largest_logit) + _ROUNDING_FACTOR * rounding


@dataclass(frozen=True)
class _Texts:
    """What was generated from what."""

    prompts: Sequence[Sequence[int]]
    token_ids: Sequence[Sequence[int]]


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
    texts = _Texts(prompts, token_ids)
    got = [torch.stack(list(chosen_from)) for chosen_from in logits]
    model = _load(folder, torch.float32)
    exact, at_once = list(_cached(model, texts)), list(_at_once(model, texts))
    largest = max(float(e.nan_to_num(0.0, 0.0, 0.0).abs().max()) for e in exact)
    order_N = _differences(at_once, exact)
    rounding_MN = [order_N] if bool(order_N.max() <= _ORDER_LIMIT * largest) else []
    if dtype != torch.float32:
        model = _load(folder, dtype)
    same = exact if dtype == torch.float32 else list(_cached(model, texts))
    rounding_MN.append(_differences(same, exact))
    rounding_MN += [_differences(variant, at_once) for variant in _variants(model, texts, dtype)]
    got_N = _differences(got, exact)
    slack = 2 * _FP32_TOLERANCE * max(1.0, largest) if dtype == torch.float32 else 0.0
    return Check(
        dtype=str(dtype).removeprefix("torch."),
        tokens_compared=sum(len(t) for t in token_ids),
        tokens_equal=_largest_chosen(same, token_ids, slack) if greedy else None,
        # Tensors' max everywhere: Python's drops NaN.
        max_logit_difference=float(_differences(got, same).max()),
        largest_logit=largest,
        difference_from_fp32=float(got_N.max()),
        rounding_difference=float(torch.stack(rounding_MN).max()),
        typical_difference_from_fp32=float(got_N.median()),
        typical_rounding_difference=float(torch.stack(rounding_MN).median(1).values.max()),
        not_finite=sum(int((g.isfinite() < e.isfinite()).sum()) for g, e in zip(got, exact, strict=True)),
    )


def _load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config, checkpoint = load_config(folder), DequantisedCheckpoint(folder)
    options: dict[str, Any] = {"dtype": dtype, "experts_implementation": "eager", "use_safetensors": True}
    found = class_of(config)
    model: PreTrainedModel
    if checkpoint.widened:
        # The twin in BF16, made by the same rules: what a run of the quantised weights must equal.
        plain = {key: checkpoint[key][...] for key in checkpoint}
        config.__dict__.pop("quantization_config", None)
        model = found.model.from_pretrained(None, config=found.config, state_dict=plain, **options)
    else:
        model = found.model.from_pretrained(folder, config=found.config, local_files_only=True, **options)
    return model.eval()


@torch.inference_mode()
def _cached(model: PreTrainedModel, texts: _Texts) -> Iterator[torch.Tensor]:
    """For each sequence the logits (N, V), in FP32, from which plain generation would choose its tokens."""
    for prompt, new in zip(texts.prompts, texts.token_ids, strict=True):
        cache, steps, begin = None, [], 0
        forget_lengths(rotations_by_length(model))
        for ids in ([*prompt], *([token] for token in new[:-1])):
            out = model(
                input_ids=torch.tensor([ids]),
                # Not every cache counts its tokens, so they are counted here, as plain generation does.
                position_ids=torch.arange(begin, begin + len(ids))[None],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, begin = out.past_key_values, begin + len(ids)
            steps.append(out.logits[0, -1].float())
        yield torch.stack(steps)


@torch.inference_mode()
def _at_once(model: PreTrainedModel, texts: _Texts) -> Iterator[torch.Tensor]:
    """Compute the logits in one pass over each whole sequence, without a cache."""
    for prompt, new in zip(texts.prompts, texts.token_ids, strict=True):
        sequence = torch.tensor([[*prompt, *new[:-1]]])
        forget_lengths(rotations_by_length(model))
        yield model(sequence, use_cache=False).logits[0, len(prompt) - 1 :].float()


def _variants(model: PreTrainedModel, texts: _Texts, dtype: torch.dtype) -> Iterator[list[torch.Tensor]]:
    """`_at_once` with embeddings that are half a rounding off, each value in a random direction."""
    generator = torch.Generator().manual_seed(0)
    half = torch.finfo(dtype).eps / 2

    def off(embedded: torch.Tensor) -> torch.Tensor:
        sign = torch.randint(0, 2, embedded.shape, generator=generator) * 2 - 1
        return (embedded.float() * (1 + half * sign)).to(embedded.dtype)

    for _ in range(_VARIANTS):
        with _changed(model.get_input_embeddings(), off):  # type: ignore[no-untyped-call]
            yield list(_at_once(model, texts))


@contextmanager
def _changed(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _largest_chosen(logits: Sequence[torch.Tensor], token_ids: Sequence[Sequence[int]], slack: float) -> bool:
    """Whether each token's logit is the largest, or `slack` below it."""
    return all(
        bool((of_NV.max(-1).values - of_NV.gather(1, torch.tensor(new)[:, None])[:, 0] <= slack).all())
        for of_NV, new in zip(logits, token_ids, strict=True)
    )


def _differences(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> torch.Tensor:
    """The largest difference between each token's logits (N,); NaN where one is NaN, 0 between equal infinities."""
    return torch.cat(
        [torch.where(a == b, 0.0, (a - b).abs()).amax(1) for a, b in zip(left, right, strict=True)]
    )
