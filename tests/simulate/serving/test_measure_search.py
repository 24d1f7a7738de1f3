"""Percentiles and goodput of known latencies; the search on curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulate.serving.steps import LinearTimes, grid_times, group
from wingspan.errors import InputError
from wingspan.schedule.latencies import percentiles
from wingspan.schedule.serving_result import LoadPoint, ServingLimits
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measure import measure
from wingspan.simulate.serving.search import find_highest_load
from wingspan.specs.requests import Requests, poisson_requests


def test_percentiles_of_a_hundred_numbers() -> None:
    spread = percentiles(np.arange(101, dtype=float))
    assert (spread.mean, spread.p50, spread.p90, spread.p99, spread.highest) == (50, 50, 90, 99, 100)
    assert percentiles(np.zeros(0)).highest == 0


def test_a_lone_request_by_hand() -> None:
    """100 prompt tokens: 0.11 s to the first; 9 more at 0.011 s each."""
    lone = Requests(np.array([0.0]), np.array([100]), np.array([10]))
    point = measure(serve(lone, Fleet(group(LinearTimes()))), 1.0, ServingLimits(tpot_p99_seconds=0.01))
    assert point.ttft_seconds.p99 == pytest.approx(0.11)
    assert point.tpot_seconds.p50 == pytest.approx(0.011)
    assert point.duration_seconds == pytest.approx(0.11 + 9 * 0.011)
    assert point.output_tokens_per_second == pytest.approx(10 / point.duration_seconds)
    assert point.mean_decoding_sequences == 1
    assert (point.meets_limits, point.goodput_requests_per_second, point.within_limits_share) == (False, 0, 0)


def test_requests_of_one_token_have_no_time_per_token_and_break_no_limit_on_it() -> None:
    single = Requests(np.array([0.0, 1.0]), np.array([10, 10]), np.array([1, 1]))
    point = measure(serve(single, Fleet(group())), 1.0, ServingLimits(tpot_p99_seconds=1e-9))
    assert point.tpot_seconds.highest == 0
    assert point.meets_limits
    assert point.within_limits_share == 1


def test_figures_of_a_steady_load_do_not_count_how_long_the_last_request_drains() -> None:
    arrivals, prompts, outputs = np.arange(200) / 4, np.full(200, 50), np.full(200, 10)
    slow = outputs.copy()
    slow[-1] = 3000  # alone in the system for half a minute
    points = [
        measure(serve(Requests(arrivals, prompts, each), Fleet(group(LinearTimes()))), 4.0, ServingLimits())
        for each in (outputs, slow)
    ]
    assert points[1].duration_seconds > 1.5 * points[0].duration_seconds
    for field in (
        "mean_requests_in_system",
        "mean_decoding_sequences",
        "busy_share",
        "output_tokens_per_second",
    ):
        assert getattr(points[1], field) == pytest.approx(getattr(points[0], field)), field


def curve(capacity: float, limits: ServingLimits, requests: int = 10_000) -> tuple[list[float], object]:
    """Points whose TTFT is 1 / (capacity - rate): the answer of a search is known."""
    base = poisson_requests(1, 5, 10, 5)
    template = measure(serve(base, Fleet(group())), 1.0, ServingLimits())
    asked: list[float] = []

    def at_load(rate: float) -> LoadPoint:
        asked.append(rate)
        ttft = 1 / (capacity - rate) if rate < capacity else 1e9
        spread = percentiles(np.array([ttft]))
        meets = limits.ttft_p99_seconds is None or ttft <= limits.ttft_p99_seconds
        return template.model_copy(
            update={
                "offered_requests_per_second": rate,
                "requests": requests,
                "ttft_seconds": spread,
                "end_to_end_seconds": percentiles(np.array([1.0])),
                "mean_requests_in_system": rate * min(ttft, 1.0),
                "meets_limits": meets,
            }
        )

    return asked, at_load


@pytest.mark.parametrize("start", [0.01, 7.0, 5000.0])
def test_the_search_finds_the_known_limit_from_either_side(start: float) -> None:
    asked, at_load = curve(100.0, ServingLimits(ttft_p99_seconds=0.1))
    found = find_highest_load(at_load, start, tolerance=0.01)  # type: ignore[arg-type]
    assert found.requests_per_second is not None
    assert 90 / 1.01 <= found.requests_per_second <= 90
    assert len(asked) == len(set(asked)) == len(found.points)
    assert [p.offered_requests_per_second for p in found.points] == sorted(asked)
    assert found.note == ""


def test_a_limit_that_no_load_meets_is_said() -> None:
    _, at_load = curve(100.0, ServingLimits(ttft_p99_seconds=0.001))
    found = find_highest_load(at_load, 10.0)  # type: ignore[arg-type]
    assert found.requests_per_second is None
    assert "no load meets the limits" in found.note


def test_too_few_requests_to_break_a_limit_is_said() -> None:
    _, at_load = curve(1e30, ServingLimits(ttft_p99_seconds=1.0), requests=10)
    found = find_highest_load(at_load, 10.0)  # type: ignore[arg-type]
    assert "10 requests are too few" in found.note


def test_on_the_simulator_the_found_load_meets_the_limits_and_a_tenth_more_does_not() -> None:
    base = poisson_requests(1, 800, 400, 60, spread=0.5, seed=5)
    fleet = Fleet(group(grid_times(), homes=2, kv_tokens=8000, sequences=64, budget=512))
    limits = ServingLimits(ttft_p99_seconds=0.5, tpot_p99_seconds=0.04)

    def at_load(rate: float) -> LoadPoint:
        return measure(serve(base.at_rate(rate), fleet), rate, limits)

    found = find_highest_load(at_load, 1.0)
    assert found.requests_per_second is not None
    assert at_load(found.requests_per_second).meets_limits
    assert not at_load(found.requests_per_second * 1.1).meets_limits


def test_bad_search_is_refused() -> None:
    _, at_load = curve(1.0, ServingLimits())
    with pytest.raises(InputError, match="both above 0"):
        find_highest_load(at_load, 0.0)  # type: ignore[arg-type]
