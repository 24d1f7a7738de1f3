"""The next token of each sequence: greedy, or drawn with a seed that belongs to the prompt, not to the rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True)
class Sampling:
    """How to choose; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


class Sampler:
    """One generator per prompt: its tokens do not depend on the number of ranks or the other prompts."""

    def __init__(self, sampling: Sampling, prompt_indices: Sequence[int]) -> None:
        self._sampling = sampling
        self._generators = [
            torch.Generator().manual_seed((sampling.seed * 1_000_003 + index) % 2**63)
            for index in prompt_indices
        ]
        self._warpers: list[LogitsProcessor] = (
            [TemperatureLogitsWarper(sampling.temperature)] if sampling.temperature else []
        )
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, logits_PV: torch.Tensor) -> torch.Tensor:
        """The chosen ids (P,), on the CPU."""
        if not self._sampling.temperature:
            return logits_PV.argmax(-1).cpu()
        scores_PV = logits_PV.float().cpu()
        for warp in self._warpers:
            scores_PV = warp(torch.empty(0, dtype=torch.int64), scores_PV)
        chances_PV = scores_PV.softmax(-1)
        drawn = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(chances_PV, self._generators, strict=True)
        ]
        return torch.cat(drawn)
