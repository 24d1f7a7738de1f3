"""Synthetic routing traces of any shape: `workloads` say which experts are likely, this draws the tokens.

Drawing k experts without replacement, in proportion to weights, is the Gumbel top-k trick; here in its equivalent
form: every expert draws an exponential time with its weight as rate, and the k earliest win, in that order.

Shapes: T tokens, L MoE layers, K experts per token, E logical experts, R home ranks, C classes of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.limits import MOST_LAYERS, MOST_RANKS, MOST_SLOTS, MOST_TRACED
from wingspan.routing.trace import MAX_EXPERTS, RoutingTrace

_CHUNK_TOKENS = 4096


@dataclass(frozen=True)
class TraceShape:
    """How much of what.

    Args:
        tokens: tokens in all.
        layers: MoE layers.
        experts: logical experts per layer.
        top_k: experts per token.
        ranks: home ranks.
        request_tokens: tokens of one request; each step every rank handles one request on average.

    Raises:
        InputError: a number below 1, or more experts per token than there are.
    """

    tokens: int
    layers: int
    experts: int
    top_k: int
    ranks: int
    request_tokens: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"synthetic trace: {name} = {value}; use 1 or more")
        for name, value, most in (
            ("tokens", self.tokens, MOST_TRACED),
            ("layers", self.layers, MOST_LAYERS),
            ("ranks", self.ranks, MOST_RANKS),
        ):
            if value > most:
                raise InputError(f"synthetic trace: {name} = {value:,} is more than {most:,}")
        if self.top_k > self.experts:
            raise InputError(f"synthetic trace: top-{self.top_k} of {self.experts} experts cannot be")
        if self.experts > MAX_EXPERTS:
            raise InputError(f"synthetic trace: {self.experts} experts; a trace holds at most {MAX_EXPERTS}")
        if self.layers * self.experts > MOST_SLOTS:
            raise InputError(
                f"synthetic trace: {self.layers:,} layers of {self.experts:,} experts are more than {MOST_SLOTS:,}"
            )

    @property
    def requests(self) -> int:
        """Requests; the last may be cut short."""
        return -(-self.tokens // self.request_tokens)

    @property
    def steps(self) -> int:
        """Steps, with as many requests each as there are ranks."""
        return -(-self.requests // self.ranks)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one chunk, before they choose."""

    request_T: NDArray[np.int64]
    home_rank_T: NDArray[np.int64]
    step_T: NDArray[np.int64]


class Router(Protocol):
    """How tokens choose experts."""

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> NDArray[np.int16]:
        """The experts of every token in every layer: (T, L, K)."""


@dataclass(frozen=True)
class Weighted:
    """Each token draws its experts in proportion to the weights of its class.

    Args:
        weight_CLE: any non-negative numbers, at least top-k of them positive in every (class, layer).
        top_k: experts per token.
        class_of: the class of each token, (T,) in 0..C-1.
        noise: share of (token, layer) choices that ignore the weights and are uniform.
    """

    weight_CLE: NDArray[np.float32]
    top_k: int
    class_of: Callable[[Tokens], NDArray[np.int64]] = lambda tokens: np.zeros_like(tokens.step_T)
    noise: float = 0.0

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> NDArray[np.int16]:
        """See `Router`."""
        _, layers, experts = self.weight_CLE.shape
        class_T = self.class_of(tokens)
        picks_TLK = np.empty((len(class_T), layers, self.top_k), dtype=np.int16)
        for layer in range(layers):
            time_TE = rng.standard_exponential((len(class_T), experts), dtype=np.float32)
            # A weight of 0 gives the time infinity (0 / 0: not a number, which sorts behind): never among the earliest.
            with np.errstate(divide="ignore", invalid="ignore"):
                calm_TE = time_TE / self.weight_CLE[class_T, layer]
            if self.noise:
                noisy_T = rng.random(len(class_T)) < self.noise
                calm_TE[noisy_T] = time_TE[noisy_T]
            picks_TLK[:, layer] = _earliest(calm_TE, self.top_k)
        return picks_TLK


@dataclass(frozen=True)
class Dealt:
    """Experts are dealt like cards, from decks shuffled anew: loads as even as whole numbers allow."""

    layers: int
    experts: int
    top_k: int

    @property
    def deal_tokens(self) -> int:
        """Tokens after which every expert has been dealt equally often."""
        return self.experts // math.gcd(self.experts, self.top_k)

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> NDArray[np.int16]:
        """See `Router`."""
        count = len(tokens.step_T)
        deals = -(-count // self.deal_tokens)
        place_TK = (np.arange(count)[:, None] * self.top_k + np.arange(self.top_k)) % self.experts
        deck = np.arange(self.experts, dtype=np.int16)
        picks_TLK = np.empty((count, self.layers, self.top_k), dtype=np.int16)
        for layer in range(self.layers):
            shuffled_DE = rng.permuted(np.tile(deck, (deals, 1)), axis=1)
            picks_TLK[:, layer] = shuffled_DE[np.arange(count)[:, None] // self.deal_tokens, place_TK]
        return picks_TLK


@dataclass(frozen=True)
class SyntheticWorkload:
    """What a kind of synthetic trace is made of.

    Args:
        router: how tokens choose.
        home_weight_R: how likely each rank is the home of a request; None deals requests to the ranks in turn.
    """

    router: Router
    home_weight_R: NDArray[np.float64] | None = None


def generate(shape: TraceShape, workload: SyntheticWorkload, seed: int) -> Iterator[RoutingTrace]:
    """The trace in chunks; the same shape, workload and seed always give the same tokens."""
    home_N = _homes(shape, workload, seed)
    chunk = _chunk_tokens(workload.router)
    for number, start in enumerate(range(0, shape.tokens, chunk)):
        token_T = np.arange(start, min(start + chunk, shape.tokens))
        request_T = token_T // shape.request_tokens
        tokens = Tokens(request_T, home_N[request_T], request_T // shape.ranks)
        picks_TLK = workload.router(tokens, np.random.default_rng([seed, 1, number]))
        yield RoutingTrace(
            picks_TLK,
            tokens.home_rank_T.astype(np.int32),
            request_T.astype(np.int32),
            tokens.step_T.astype(np.int32),
            shape.experts,
            shape.ranks,
        )


def _homes(shape: TraceShape, workload: SyntheticWorkload, seed: int) -> NDArray[np.int64]:
    """The home rank of every request."""
    if workload.home_weight_R is None:
        return np.arange(shape.requests) % shape.ranks
    share_R = workload.home_weight_R / workload.home_weight_R.sum()
    return np.random.default_rng([seed, 2]).choice(shape.ranks, size=shape.requests, p=share_R)


def _chunk_tokens(router: Router) -> int:
    """About `_CHUNK_TOKENS`, in whole deals."""
    deal = router.deal_tokens if isinstance(router, Dealt) else 1
    return max(1, _CHUNK_TOKENS // deal) * deal


def _earliest(time_TE: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Indices of the k smallest of each row, smallest first."""
    picks_TK = np.argpartition(time_TE, min(top_k, time_TE.shape[1] - 1), axis=1)[:, :top_k]
    order_TK = np.argsort(np.take_along_axis(time_TE, picks_TK, axis=1), axis=1)
    result: NDArray[np.int64] = np.take_along_axis(picks_TK, order_TK, axis=1)
    return result
