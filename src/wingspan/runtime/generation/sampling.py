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
        presence_penalty: taken off the logits of tokens that the answer has.
        frequency_penalty: taken off for each time that it has them.
        repetition_penalty: divides the positive logits, and multiplies the negative, of tokens in prompt or answer.
        logit_bias: added to the logits of tokens.
        grammar: that the answer must follow, as `json_grammar` gives it.

    Raises:
        InputError: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None

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
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= (value := getattr(self, name)) <= 2:
                raise InputError(f"{name} is {value}; use a number from -2 to 2")
        if not 0 < self.repetition_penalty <= 10:
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty}; use a number above 0, 10 at most"
            )
        if not all(-100 <= bias <= 100 for _, bias in self.logit_bias):
            raise InputError(f"logit_bias is {dict(self.logit_bias)}; use biases from -100 to 100")

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return bool(
            self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1
            or self.logit_bias
            or self.grammar is not None
        )

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
