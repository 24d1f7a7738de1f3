"""Where a simulation's requests come from: drawn, or read from a trace; at any rate, none longer than the model takes.

Shapes: N requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wingspan.errors import InputError
from wingspan.simulate.serving.settle import MOST_TIMES
from wingspan.specs.model import ModelSpec
from wingspan.specs.request_files import read_requests
from wingspan.specs.requests import Requests, poisson_requests

USUAL_RATE = 10.0
"""Requests a second, where neither a person nor a trace says."""
USUAL_REQUESTS = 2000


@dataclass(frozen=True)
class RequestSource:
    """Requests at any rate.

    Args:
        sample: some of them: what lengths to expect.
        at_rate: so many requests, arriving at so many a second.
        described: what they are, in words.
        own_rate: at which a trace has them; None: it says no times, or they are drawn.
        count: how many a simulation takes; drawn ones are prolonged until the figures settle.
        drawn: whether they can be prolonged.
        remarks: what was assumed, left out or cut.
        seeded: whether requests, or when they arrive, follow from a seed.
    """

    sample: Requests
    at_rate: Callable[[float, int], Requests]
    described: str
    own_rate: float | None
    count: int
    drawn: bool
    remarks: tuple[str, ...]
    seeded: bool = True


def drawn_requests(
    model: ModelSpec, count: int, prompt_tokens: int, output_tokens: int, *, spread: float, seed: int
) -> RequestSource:
    """Independent arrivals and log-normal lengths, cut to the model's context.

    Raises:
        InputError: they would be longer than the context in the mean; no engine serves them.
    """
    longest = model.max_context
    if longest is not None and prompt_tokens + output_tokens > longest:
        raise InputError(
            f"`prompt_tokens` {prompt_tokens} and `output_tokens` {output_tokens} are longer than the {longest:,} "
            f"tokens that {model.name} was made for; ask for fewer"
        )

    def draw(rate: float, number: int) -> Requests:
        return poisson_requests(rate, number, prompt_tokens, output_tokens, spread=spread, seed=seed)

    def cut(rate: float, number: int) -> Requests:
        return _cut(draw(rate, number), longest)

    sample = draw(USUAL_RATE, MOST_TIMES * count)
    described = f"Poisson, at least {count} per load, seed {seed}; "
    remarks = _cut_remark(sample, model, "drawn requests")
    sample = _cut(sample, longest)
    return RequestSource(sample, cut, described + _lengths(sample), None, count, drawn=True, remarks=remarks)


def recorded_requests(model: ModelSpec, path: Path, first: int | None, *, seed: int) -> RequestSource:
    """A trace's requests, cut to the model's context; at another rate its times are stretched or pressed.

    Where the file has lengths alone, arrivals are drawn (Poisson).

    Raises:
        InputError: the file is missing, broken or not recognised.
    """
    recorded = read_requests(path, first)
    remarks = [f"{recorded.format}: {remark}" for remark in recorded.remarks]
    remarks += _cut_remark(recorded.requests, model, "requests")
    requests = _cut(recorded.requests, model.max_context)
    count = len(requests)
    if requests.blocks is not None:
        remarks.append(
            f"{requests.shared_prefix_share:.1%} of the prompt tokens repeat an earlier prompt's beginning (blocks of "
            f"{requests.blocks.tokens} tokens)"
        )

    def at_rate(rate: float, _: int) -> Requests:
        # As they stand they may come at one instant: then they have no rate, and none can be asked for.
        return requests if rate == requests.rate_per_second else requests.at_rate(rate)

    def at_drawn_times(rate: float, _: int) -> Requests:
        return replace(
            requests, arrival_seconds_N=poisson_requests(rate, count, 1, 1, seed=seed).arrival_seconds_N
        )

    if not recorded.timed:
        remarks.append(f"{recorded.format}: the file has no arrivals; they are drawn (Poisson, seed {seed})")
    described = f"{count:,} of {path} ({recorded.format}); {_lengths(requests)}"
    return RequestSource(
        requests,
        at_rate if recorded.timed else at_drawn_times,
        described,
        requests.rate_per_second if recorded.timed else None,
        count,
        drawn=False,
        seeded=not recorded.timed,
        remarks=tuple(remarks),
    )


def rates_of(source: RequestSource, given: list[float], *, searched: bool) -> tuple[list[float], list[str]]:
    """The loads to simulate, lowest first, and a remark where a trace's times are stretched.

    Raises:
        InputError: a load at or below 0, or none to search from.
    """
    own = source.own_rate
    if given:
        rates = sorted(given)
        if rates[0] <= 0:
            raise InputError(f"`rate` {rates[0]:g}: every rate must be above 0")
    elif own is not None and searched and math.isinf(own):
        raise InputError(
            f"{source.described}: all requests arrive at one instant, so no load can be searched"
        )
    else:
        rates = [USUAL_RATE if own is None else own]
    if own is None or (rates == [own] and not searched):
        return rates, []
    return rates, [f"arrivals keep their rhythm, stretched or pressed from the {own:.3g} requests/s recorded"]


def _cut(requests: Requests, longest: int | None) -> Requests:
    return requests if longest is None else requests.cut_to(longest)


def _cut_remark(requests: Requests, model: ModelSpec, what: str) -> tuple[str, ...]:
    longest = model.max_context
    longer = 0 if longest is None else int(requests.longer_than(longest).sum())
    if not longer:
        return ()
    return (f"{longer:,} of {len(requests):,} {what} are cut to the model's {longest:,} tokens",)


def _lengths(sample: Requests) -> str:
    return f"mean {sample.prompt_tokens_N.mean():.0f} prompt and {sample.output_tokens_N.mean():.0f} output tokens"
