"""One load that a benchmark sent to a server, whichever program sent it.

Shapes: N requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wingspan.errors import InputError
from wingspan.specs.reading import shown
from wingspan.specs.requests import Requests, poisson_requests


@dataclass(frozen=True)
class BenchmarkLoad:
    """A load, and what its requests met in the median.

    Args:
        source: the file, and in it the load.
        format: whose file it is.
        model: as the benchmark names it; None: the file does not.
        requests: as they were to be sent.
        concurrency: the most that the client had under way; None: no limit.
        ttft_seconds: time to first token.
        tpot_seconds: time per output token after the first.
        output_tokens_per_second: from the first request sent to the last token.
        tried_ahead: whether the server tried tokens ahead (speculative decoding).
        remarks: what was assumed, and what was left out.
    """

    source: str
    format: str
    model: str | None
    requests: Requests
    concurrency: int | None
    ttft_seconds: float
    tpot_seconds: float
    output_tokens_per_second: float
    tried_ahead: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """The load in a few words: how it is sent, tokens of a prompt and of an answer."""
        prompt, output = self.requests.prompt_tokens_N.mean(), self.requests.output_tokens_N.mean()
        if self.concurrency is not None:
            sent = f"{self.concurrency} at a time"
        elif math.isinf(self.requests.rate_per_second):
            sent = "all at once"
        else:
            sent = f"{self.requests.rate_per_second:.3g}/s"
        return f"{sent}, {prompt:.0f} + {output:.0f}"


@dataclass(frozen=True)
class SentLoad:
    """How a client sent its requests, as files say it; None: the file does not.

    Args:
        count: requests that were answered.
        prompt_tokens, output_tokens: of each, or one number for all.
        start_seconds: when each was sent, in any order.
        rate_per_second: infinite: as soon as the concurrency lets it.
        concurrency: the most under way.
    """

    count: int
    prompt_tokens: Sequence[float]
    output_tokens: Sequence[float]
    start_seconds: Sequence[float] | None
    rate_per_second: float
    concurrency: int | None

    def requests(self) -> tuple[Requests, tuple[str, ...]]:
        """The requests, in order, and what was assumed of them."""
        prompt_N, output_N = _whole(self.prompt_tokens, self.count), _whole(self.output_tokens, self.count)
        if self.start_seconds is not None and not (math.isinf(self.rate_per_second) and self.concurrency):
            start_N = np.array(self.start_seconds, dtype=np.float64)
            order_N = np.argsort(start_N, kind="stable")
            start_N = start_N[order_N] - start_N.min()
            return Requests(start_N, prompt_N[order_N], output_N[order_N]), ()
        if math.isinf(self.rate_per_second):
            return Requests(np.zeros(self.count), prompt_N, output_N), ()
        arrivals_N = poisson_requests(self.rate_per_second, self.count, 1, 1).arrival_seconds_N
        return Requests(arrivals_N, prompt_N, output_N), ("arrivals drawn (Poisson)",)


def number(data: Mapping[str, Any], key: str, source: str, mend: str = "take a whole file") -> float:
    """A number above 0 that a benchmark's file has under a key.

    Raises:
        InputError: it is missing, or something else.
    """
    if key not in data:
        raise InputError(f"{source}: key {key} is missing; {mend}")
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or math.isinf(value):
        raise InputError(f"{source}: {key} = {shown(value)}: a number above 0 is wanted; {mend}")
    return float(value)


def limit(data: Mapping[str, Any], key: str, source: str) -> int | None:
    """The most requests under way, where the file has a limit."""
    if data.get(key) is None:
        return None
    value = number(data, key, source)
    if value != int(value):
        raise InputError(f"{source}: {key} = {value:g}: a whole number is wanted")
    return int(value)


def rate(data: Mapping[str, Any], key: str, source: str) -> float:
    """Requests a second; infinite where the file says `inf`, or nothing."""
    value = data.get(key)
    if value in (None, "inf", math.inf):
        return math.inf
    return number(data, key, source)


def numbers(data: Mapping[str, Any], key: str, source: str) -> list[float] | None:
    """A list of numbers, one per request; None where the file has none.

    Raises:
        InputError: it holds something else.
    """
    values = data.get(key)
    if values is None:
        return None
    plain = isinstance(values, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in values
    )
    if not plain:
        raise InputError(f"{source}: {key} = {shown(values)}: a list of numbers is wanted, one per request")
    return [float(one) for one in values]


def _whole(tokens: Sequence[float], count: int) -> Any:
    values = np.broadcast_to(np.asarray(tokens, dtype=np.float64), (count,))
    return np.maximum(1, np.rint(values)).astype(np.int64)
