"""Requests that arrive at a server, and how they are drawn from a Poisson process; `request_files` reads them.

Shapes: N requests, in order of arrival.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError


@dataclass(frozen=True)
class PrefixBlocks:
    """Which blocks of tokens each prompt consists of: prompts that begin alike begin with the same ids.

    Args:
        ids: for each request, the ids of its prompt's blocks in order.
        tokens: of one block; the last of a prompt may be shorter.
    """

    ids: tuple[tuple[int, ...], ...]
    tokens: int

    def reusable(self, request: int, prompt_tokens: int) -> tuple[int, ...]:
        """Blocks of a prompt that another may find computed: whole ones, before its last token.

        The last token is computed always, as an engine needs its output.
        """
        return self.ids[request][: (prompt_tokens - 1) // self.tokens]


@dataclass(frozen=True, eq=False)
class Requests:
    """When each request arrives, how long its prompt is, how many tokens it wants back, and what prompts share.

    Raises:
        InputError: no request, unequal lengths, unordered or negative arrivals, or a length below 1.
    """

    arrival_seconds_N: NDArray[np.float64]
    prompt_tokens_N: NDArray[np.int64]
    output_tokens_N: NDArray[np.int64]
    blocks: PrefixBlocks | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.arrival_seconds_N), len(self.prompt_tokens_N), len(self.output_tokens_N)}
        if self.blocks is not None and len(self.blocks.ids) != len(self.arrival_seconds_N):
            raise InputError(
                f"requests: {len(self.blocks.ids)} lists of blocks for {len(self.arrival_seconds_N)} requests"
            )
        if len(sizes) != 1 or sizes == {0}:
            raise InputError(f"requests: need as many arrivals as prompts and outputs, got {sorted(sizes)}")
        arrivals = self.arrival_seconds_N
        if not np.isfinite(arrivals).all() or arrivals[0] < 0 or (np.diff(arrivals) < 0).any():
            raise InputError("requests: arrival_seconds must be finite, at least 0 and in order")
        for name, tokens in (("prompt", self.prompt_tokens_N), ("output", self.output_tokens_N)):
            if (short := int(tokens.min())) < 1:
                raise InputError(f"requests: {name}_tokens {short}; every request needs at least 1")

    def __len__(self) -> int:
        return len(self.arrival_seconds_N)

    @property
    def rate_per_second(self) -> float:
        """Mean arrivals a second between the first and the last; infinite if all come at once."""
        span = float(self.arrival_seconds_N[-1] - self.arrival_seconds_N[0])
        return (len(self) - 1) / span if span > 0 else math.inf

    def longer_than(self, tokens: int) -> NDArray[np.bool_]:
        """Whether each request, prompt and output, is longer than so many tokens: (N,)."""
        longer: NDArray[np.bool_] = self.prompt_tokens_N + self.output_tokens_N > tokens
        return longer

    def cut_to(self, tokens: int) -> Requests:
        """Cut every request to `tokens` (2 or more): first its output, then its prompt."""
        prompts_N = np.minimum(self.prompt_tokens_N, tokens - 1)
        outputs_N = np.minimum(self.output_tokens_N, tokens - prompts_N)
        return replace(self, prompt_tokens_N=prompts_N, output_tokens_N=outputs_N)

    def at_rate(self, rate_per_second: float) -> Requests:
        """Let the same requests arrive faster or slower, in the same rhythm.

        Raises:
            InputError: the requests arrive at one instant, so that there is no rhythm to stretch.
        """
        if math.isinf(self.rate_per_second):
            raise InputError("requests: all arrive at one instant; their load cannot be raised or lowered")
        first = self.arrival_seconds_N[0]
        stretched = (self.arrival_seconds_N - first) * (self.rate_per_second / rate_per_second)
        return replace(self, arrival_seconds_N=stretched)

    @property
    def shared_prefix_share(self) -> float:
        """Share of all prompt tokens that repeat the beginning of an earlier prompt: what a cache without end finds."""
        if self.blocks is None:
            return 0.0
        seen: set[int] = set()
        shared = 0
        for request, prompt in enumerate(self.prompt_tokens_N.tolist()):
            ids = self.blocks.reusable(request, prompt)
            known = next((n for n, block in enumerate(ids) if block not in seen), len(ids))
            shared += known * self.blocks.tokens
            seen.update(ids)
        return shared / float(self.prompt_tokens_N.sum())


def poisson_requests(
    rate_per_second: float,
    count: int,
    prompt_tokens: int,
    output_tokens: int,
    *,
    spread: float = 0.0,
    seed: int = 0,
) -> Requests:
    """`count` requests with independent gaps, exponential with mean 1 / rate.

    The same seed gives the same requests at every rate, only closer together or wider apart, and a larger count
    the same ones and more.

    Args:
        spread: standard deviation over mean of both lengths, log-normal and at least 1 token; 0 makes all equal.

    Raises:
        InputError: a rate, count, length or spread that makes no sense.
    """
    if not (rate_per_second > 0 and math.isfinite(rate_per_second)):
        raise InputError(f"rate {rate_per_second} requests a second; give a number above 0")
    if count < 1 or prompt_tokens < 1 or output_tokens < 1:
        raise InputError(
            f"{count} requests of {prompt_tokens} prompt and {output_tokens} output tokens; each at least 1"
        )
    if not 0 <= spread <= 10:
        raise InputError(f"spread {spread}; give a standard deviation over mean between 0 and 10")
    # A stream of its own for each column: more requests only add to the end, they change none before.
    gaps, prompts, outputs = (np.random.default_rng((seed, column)) for column in range(3))
    return Requests(
        np.cumsum(gaps.exponential(size=count)) / rate_per_second,
        _lengths(prompts, prompt_tokens, spread, count),
        _lengths(outputs, output_tokens, spread, count),
    )


def _lengths(random: np.random.Generator, mean: int, spread: float, count: int) -> NDArray[np.int64]:
    variance = math.log1p(spread**2)  # of the normal underneath, so that mean and spread are those asked for
    drawn = random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), size=count)
    return np.maximum(1, np.rint(drawn)).astype(np.int64)
