"""From the times of requests to the figures of a load: the same for a server's answers and a simulation's.

Shapes: N requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.schedule.serving_result import Latencies, Percentiles, ServingLimits
from wingspan.specs.requests import Requests

Array = NDArray[np.float64]


def latencies(requests: Requests, first_N: Array, finish_N: Array, limits: ServingLimits) -> Latencies:
    """Percentiles, throughput and goodput.

    Args:
        requests: in order of arrival.
        first_N: when each got its first token, in seconds of the arrivals' clock.
        finish_N: when each got its last.
        limits: that goodput asks for.
    """
    arrival_N, output_N = requests.arrival_seconds_N, requests.output_tokens_N
    ttft_N = first_N - arrival_N
    tpot_N = (finish_N - first_N) / np.maximum(1, output_N - 1)
    several_N = output_N > 1
    good_N = _within(ttft_N, limits.ttft_p99_seconds) & (
        _within(tpot_N, limits.tpot_p99_seconds) | ~several_N
    )
    ttft, tpot = percentiles(ttft_N), percentiles(tpot_N[several_N])
    counted_N, seconds = counted(requests, finish_N)
    return Latencies(
        requests=len(requests),
        duration_seconds=float(finish_N.max() - arrival_N[0]),
        ttft_seconds=ttft,
        tpot_seconds=tpot,
        end_to_end_seconds=percentiles(finish_N - arrival_N),
        completed_requests_per_second=float(counted_N.sum()) / seconds,
        output_tokens_per_second=float(output_N[counted_N].sum()) / seconds,
        prompt_tokens_per_second=float(requests.prompt_tokens_N[counted_N].sum()) / seconds,
        goodput_requests_per_second=float((good_N & counted_N).sum()) / seconds,
        within_limits_share=float(good_N.mean()),
        meets_limits=_meets(ttft.p99, limits.ttft_p99_seconds) and _meets(tpot.p99, limits.tpot_p99_seconds),
    )


def counted(requests: Requests, finish_N: Array) -> tuple[NDArray[np.bool_], float]:
    """Requests that throughput counts, and over how many seconds: those that end while others still arrive.

    The first stretch, as long as the median request takes, is left out: nothing can have ended there. Where the
    arrivals do not last twice as long, all requests count, over the whole run.
    """
    arrival_N = requests.arrival_seconds_N
    first, last = float(arrival_N[0]), float(arrival_N[-1])
    begin = first + float(np.median(finish_N - arrival_N))
    if last - begin < (last - first) / 2:
        return np.ones(len(finish_N), dtype=np.bool_), float(finish_N.max()) - first
    return (finish_N > begin) & (finish_N <= last), last - begin


def percentiles(seconds_N: Array) -> Percentiles:
    """Mean, median, tail and highest; all 0 where there is nothing to measure."""
    values = seconds_N if len(seconds_N) else np.zeros(1)
    p50, p90, p99 = (float(p) for p in np.percentile(values, [50, 90, 99]))
    return Percentiles(mean=float(values.mean()), p50=p50, p90=p90, p99=p99, highest=float(values.max()))


def _within(seconds_N: Array, limit: float | None) -> NDArray[np.bool_]:
    return seconds_N <= (np.inf if limit is None else limit)


def _meets(seconds: float, limit: float | None) -> bool:
    return limit is None or seconds <= limit
