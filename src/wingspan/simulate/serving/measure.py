"""From the times of each simulated request to the figures of one load."""

from __future__ import annotations

from wingspan.schedule.latencies import latencies, percentiles
from wingspan.schedule.serving_result import LoadPoint, ServingGroup, ServingLimits
from wingspan.simulate.serving.engine import Served
from wingspan.simulate.serving.group import GroupSpec, GroupState


def measure(served: Served, offered_requests_per_second: float, limits: ServingLimits) -> LoadPoint:
    """Percentiles, throughput and goodput of one simulation."""
    requests = served.requests
    met = latencies(requests, served.first_token_seconds_N, served.finish_seconds_N, limits)
    return LoadPoint(
        **dict(met),
        offered_requests_per_second=offered_requests_per_second,
        waiting_seconds=percentiles(served.admitted_seconds_N - requests.arrival_seconds_N),
        prefix_hit_share=served.prefix_hit_share,
        mean_requests_in_system=served.request_seconds / met.duration_seconds,
        mean_decoding_sequences=_mean_decoding(served.groups[-1]),
        peak_kv_tokens={group.spec.name: group.peak_kv_tokens for group in served.groups},
        busy_share={group.spec.name: group.busy_seconds / met.duration_seconds for group in served.groups},
    )


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
