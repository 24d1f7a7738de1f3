"""From the times of each request to the figures of one load.

Shapes: N requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.schedule.serving_result import LoadPoint, Percentiles, ServingGroup, ServingLimits
from wingspan.simulate.serving.engine import Served
from wingspan.simulate.serving.group import GroupSpec, GroupState

Array = NDArray[np.float64]


def measure(served: Served, offered_requests_per_second: float, limits: ServingLimits) -> LoadPoint:
    """Percentiles, throughput and goodput of one simulation."""
    requests = served.requests
    arrival_N, output_N = requests.arrival_seconds_N, requests.output_tokens_N
    ttft_N = served.first_token_seconds_N - arrival_N
    tpot_N = (served.finish_seconds_N - served.first_token_seconds_N) / np.maximum(1, output_N - 1)
    several_N = output_N > 1
    duration = float(served.finish_seconds_N.max() - arrival_N[0])
    good_N = _within(ttft_N, limits.ttft_p99_seconds) & (
        _within(tpot_N, limits.tpot_p99_seconds) | ~several_N
    )
    ttft, tpot = percentiles(ttft_N), percentiles(tpot_N[several_N])
    counted_N, seconds = _counted(served)
    return LoadPoint(
        offered_requests_per_second=offered_requests_per_second,
        requests=len(requests),
        duration_seconds=duration,
        ttft_seconds=ttft,
        tpot_seconds=tpot,
        end_to_end_seconds=percentiles(served.finish_seconds_N - arrival_N),
        waiting_seconds=percentiles(served.admitted_seconds_N - arrival_N),
        completed_requests_per_second=float(counted_N.sum()) / seconds,
        output_tokens_per_second=float(output_N[counted_N].sum()) / seconds,
        prompt_tokens_per_second=float(requests.prompt_tokens_N[counted_N].sum()) / seconds,
        prefix_hit_share=served.prefix_hit_share,
        goodput_requests_per_second=float((good_N & counted_N).sum()) / seconds,
        within_limits_share=float(good_N.mean()),
        meets_limits=_meets(ttft.p99, limits.ttft_p99_seconds) and _meets(tpot.p99, limits.tpot_p99_seconds),
        mean_requests_in_system=served.request_seconds / duration,
        mean_decoding_sequences=_mean_decoding(served.groups[-1]),
        peak_kv_tokens={group.spec.name: group.peak_kv_tokens for group in served.groups},
        busy_share={group.spec.name: group.busy_seconds / duration for group in served.groups},
    )


def _counted(served: Served) -> tuple[NDArray[np.bool_], float]:
    """Requests that throughput counts, and over how many seconds: those that end while others still arrive.

    The first stretch, as long as the median request takes, is left out: nothing can have ended there. Where the
    arrivals do not last twice as long, all requests count, over the whole run.
    """
    arrival_N, finish_N = served.requests.arrival_seconds_N, served.finish_seconds_N
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


def described(spec: GroupSpec) -> ServingGroup:
    """A group's limits, for the report."""
    return ServingGroup(
        name=spec.name,
        ranks=spec.ranks,
        homes=spec.homes,
        kv_tokens_per_home=spec.kv_tokens_per_home,
        sequences_per_home=spec.sequences_per_home,
        tokens_per_step=spec.tokens_per_step,
    )


def _mean_decoding(group: GroupState) -> float:
    return group.decoded_tokens / group.decode_steps if group.decode_steps else 0.0


def _within(seconds_N: Array, limit: float | None) -> NDArray[np.bool_]:
    return seconds_N <= (np.inf if limit is None else limit)


def _meets(seconds: float, limit: float | None) -> bool:
    return limit is None or seconds <= limit
