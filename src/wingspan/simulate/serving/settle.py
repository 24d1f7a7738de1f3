"""Long enough a run: loads with enough requests that filling and draining do not decide the figures."""

from __future__ import annotations

from collections.abc import Callable

from wingspan.schedule.serving_result import LoadPoint

SPANS = 5
"""Requests must arrive over at least so many times as a request takes: then most of the run is neither end."""
MOST_TIMES = 16
"""A run is prolonged to at most so many times the requests asked for."""


def settled(point: LoadPoint) -> bool:
    """Whether the arrivals of this load lasted `SPANS` times as long as the median request took."""
    span = point.requests / point.offered_requests_per_second
    return span >= SPANS * point.end_to_end_seconds.p50


def until_settled(with_requests: Callable[[int], LoadPoint], first: int) -> LoadPoint:
    """The load with `first` requests, or with four times as many until it settles.

    A load that breaks the limits is not prolonged: more requests only make it worse. An overloaded one never
    settles; it ends at `MOST_TIMES` as many.
    """
    count, point = first, with_requests(first)
    while not settled(point) and point.meets_limits and count < MOST_TIMES * first:
        count = min(4 * count, MOST_TIMES * first)
        point = with_requests(count)
    return point


def alike(points: list[LoadPoint], with_requests: Callable[[float, int], LoadPoint]) -> list[LoadPoint]:
    """Measure the loads again, each with as many requests as the one that took most: only then do they compare."""
    most = max(point.requests for point in points)
    return [
        point if point.requests == most else with_requests(point.offered_requests_per_second, most)
        for point in points
    ]


def unsettled_note(points: list[LoadPoint]) -> str:
    """A remark on the loads that did not settle; empty if all did."""
    loads = [f"{point.offered_requests_per_second:.3g}" for point in points if not settled(point)]
    if not loads:
        return ""
    return (
        f"at {', '.join(loads)} requests/s all requests arrive within {SPANS} times what one takes: the load is too "
        "high, or the requests too few, for latencies to settle"
    )
