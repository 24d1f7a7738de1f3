"""Runs are prolonged until they settle, and only where that can help."""

from __future__ import annotations

import pytest

from tests.simulate.serving.steps import LinearTimes, group
from wingspan.schedule.serving_result import LoadPoint, ServingLimits
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measure import measure
from wingspan.simulate.serving.settle import MOST_TIMES, alike, settled, unsettled_note, until_settled
from wingspan.specs.requests import poisson_requests

SPEC = group(LinearTimes(fixed=0.001, token=0.0001), homes=2, kv_tokens=20_000, sequences=64)


def load(rate: float, count: int, limits: ServingLimits | None = None) -> LoadPoint:
    requests = poisson_requests(rate, count, 100, 20, seed=1)
    return measure(serve(requests, Fleet(SPEC)), rate, limits or ServingLimits())


def test_a_light_load_settles_at_once_a_short_one_is_prolonged() -> None:
    assert until_settled(lambda count: load(5, count), 100).requests == 100
    point = until_settled(lambda count: load(50, count), 8)
    assert point.requests > 8
    assert settled(point)
    assert unsettled_note([point]) == ""


def test_an_overloaded_one_ends_and_is_named() -> None:
    asked = []

    def overloaded(count: int) -> LoadPoint:
        asked.append(count)
        return load(1e6, min(count, 200)).model_copy(update={"requests": count})

    point = until_settled(overloaded, 1000)
    assert asked == [1000, 4000, 1000 * MOST_TIMES]
    assert "at 1e+06 requests/s" in unsettled_note([point])


def test_a_load_that_breaks_a_limit_is_not_prolonged() -> None:
    strict = ServingLimits(ttft_p99_seconds=1e-6)
    assert until_settled(lambda count: load(1e6, count, strict), 50).requests == 50


def test_alike_gives_every_load_as_many_requests() -> None:
    points = alike([load(5, 20), load(10, 80)], load)
    assert [point.requests for point in points] == [80, 80]
    assert [point.offered_requests_per_second for point in points] == [5, 10]


def test_throughput_of_a_settled_load_is_the_load_and_of_an_overloaded_one_the_capacity() -> None:
    light = load(20, 2000)
    assert light.completed_requests_per_second == pytest.approx(20, rel=0.05)
    first, second = load(2000, 2000), load(4000, 4000)
    assert first.completed_requests_per_second < 1500
    assert second.completed_requests_per_second == pytest.approx(first.completed_requests_per_second, rel=0.2)
