"""The highest load that meets the limits, by bisection over rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from wingspan.errors import InputError
from wingspan.schedule.serving_result import LoadPoint
from wingspan.simulate.serving.settle import unsettled_note

_MOST_DOUBLINGS = 40
"""From any start, 40 doublings are a factor of 1e12: beyond it all requests arrive at once."""


@dataclass(frozen=True)
class HighestLoad:
    """The highest rate that meets the limits (None: none does), every load tried, and a remark where one is due."""

    requests_per_second: float | None
    points: list[LoadPoint]
    note: str


def find_highest_load(
    at_load: Callable[[float], LoadPoint], start_requests_per_second: float, *, tolerance: float = 0.02
) -> HighestLoad:
    """Double or halve from `start` until the limits are passed on one side and met on the other, then bisect.

    Args:
        at_load: simulates one rate; should meet the limits below some rate and break them above.
        tolerance: ends when the two sides are within this share of each other.

    Raises:
        InputError: a start or tolerance that is not above 0.
    """
    if not start_requests_per_second > 0 or not tolerance > 0:
        raise InputError(
            f"search: start at {start_requests_per_second} requests a second, tolerance {tolerance}; both above 0"
        )
    tried: dict[float, LoadPoint] = {}

    def meets(rate: float) -> bool:
        tried.setdefault(rate, at_load(rate))
        return tried[rate].meets_limits

    good, bad = _bracket(meets, tried, start_requests_per_second)
    while good is not None and bad is not None and bad > good * (1 + tolerance):
        middle = math.sqrt(good * bad)
        good, bad = (middle, bad) if meets(middle) else (good, middle)
    points = [tried[rate] for rate in sorted(tried)]
    return HighestLoad(good, points, _note(good, bad, points))


def _bracket(
    meets: Callable[[float], bool], tried: dict[float, LoadPoint], start: float
) -> tuple[float | None, float | None]:
    """A rate that meets the limits and a higher one that does not; either None where there is none."""
    rate = start
    if meets(rate):
        for _ in range(_MOST_DOUBLINGS):
            if _all_at_once(tried[rate]):
                return rate, None
            if not meets(rate * 2):
                return rate, rate * 2
            rate *= 2
        return rate, None
    for _ in range(_MOST_DOUBLINGS):
        if _one_at_a_time(tried[rate]):
            return None, rate
        if meets(rate / 2):
            return rate / 2, rate
        rate /= 2
    return None, rate


def _all_at_once(point: LoadPoint) -> bool:
    """The last request arrives before the first has left: more load would only shift the same crowd."""
    return point.requests / point.offered_requests_per_second < point.end_to_end_seconds.p50 / 4


def _one_at_a_time(point: LoadPoint) -> bool:
    """Requests hardly meet: less load would not help any of them."""
    return point.mean_requests_in_system < 0.01


def _note(good: float | None, bad: float | None, points: list[LoadPoint]) -> str:
    if good is None:
        lone = points[0]
        return (
            f"no load meets the limits: even requests that hardly meet have TTFT p99 {lone.ttft_seconds.p99:.3g} s "
            f"and TPOT p99 {lone.tpot_seconds.p99:.3g} s"
        )
    best = next(point for point in points if point.offered_requests_per_second == good)
    if bad is None:
        return (
            f"{best.requests} requests are too few to break the limits even when they come almost at once; "
            "simulate more of them"
        )
    return unsettled_note([best])
