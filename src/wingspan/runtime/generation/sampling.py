"""The next token of each sequence: greedy, or drawn by a number that belongs to the request and the position alone.

Shapes: P sequences, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from wingspan.errors import InputError

_KEY_VALUES = 2**64


@dataclass(frozen=True)
class Sampling:
    """How to choose; temperature 0 is greedy.

    Args:
        temperature: divides the logits.
        top_k: choose among so many of the likeliest tokens.
        top_p: choose among the likeliest tokens that together have this share of probability.
        seed: of the draws.
        min_p: choose among tokens at least this share as likely as the likeliest.

    Raises:
        InputError: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; use a number from 0 on")
        if self.top_k is not None and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise InputError(f"top_k is {self.top_k}; use a whole number from 1 on")
        if not isinstance(self.seed, int):
            raise InputError(f"seed is {self.seed}; use a whole number")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; use a share above 0 and up to 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; use a share from 0 to 1")

    @property
    def _warpers(self) -> list[LogitsProcessor]:
        """In the order in which transformers applies them."""
        warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(self.temperature))]
        if self.top_k is not None:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None:
            warpers.append(TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            warpers.append(MinPLogitsWarper(self.min_p))
        return warpers


@dataclass(frozen=True)
class Draw:
    """What decides a sequence's next token beside its logits.

    `stream` tells apart requests with one seed; `position` is the number of tokens before the new one.
    """

    sampling: Sampling
    stream: int
    position: int

    def uniform(self) -> float:
        """A number from 0 to 1: whoever computes the sequence, and whenever, draws the same."""
        key = [self.sampling.seed % _KEY_VALUES, self.stream % _KEY_VALUES]
        generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=self.position)
        return float(np.random.Generator(generator).random())


def choose(logits_PV: torch.Tensor, draws_P: Sequence[Draw]) -> torch.Tensor:
    """The chosen ids (P,), on the CPU; sequences of one `Sampling` are treated together."""
    chosen_P = torch.empty(len(draws_P), dtype=torch.int64)
    for sampling in dict.fromkeys(draw.sampling for draw in draws_P):
        rows = [n for n, draw in enumerate(draws_P) if draw.sampling == sampling]
        of_rows = logits_PV if len(rows) == len(draws_P) else logits_PV[rows]
        chosen_P[rows] = _drawn(of_rows, sampling, [draws_P[n] for n in rows])
    return chosen_P


def _drawn(logits_PV: torch.Tensor, sampling: Sampling, draws_P: Sequence[Draw]) -> torch.Tensor:
    if not sampling.temperature:
        return logits_PV.argmax(-1).cpu()
    # Below the largest, and in doubles, so that no temperature makes them infinite.
    scores_PV = logits_PV.double().cpu()
    scores_PV -= scores_PV.amax(-1, keepdim=True)
    for warp in sampling._warpers:
        scores_PV = warp(torch.empty(0, dtype=torch.int64), scores_PV)
    chances_PV = scores_PV.softmax(-1)
    upto_PV = chances_PV.cumsum(-1)
    at_P1 = torch.tensor([[draw.uniform()] for draw in draws_P], dtype=torch.float64) * upto_PV[:, -1:]
    # From the right, so that a token without a chance is never met; at most the last one that has a chance.
    found_P = torch.searchsorted(upto_PV, at_P1, right=True)[:, 0]
    last_P = (upto_PV < upto_PV[:, -1:]).sum(-1)
    return torch.minimum(found_P, last_P)
