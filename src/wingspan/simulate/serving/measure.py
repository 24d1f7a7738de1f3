"""From the times of each simulated request to the figures of one load."""

from __future__ import annotations

from wingspan.schedule.latencies import counted, latencies, percentiles
from wingspan.schedule.serving_result import LoadPoint, ServingGroup, ServingLimits
from wingspan.simulate.serving.engine import Served
from wingspan.simulate.serving.group import GroupSpec


def measure(served: Served, offered_requests_per_second: float, limits: ServingLimits) -> LoadPoint:
    """Percentiles, throughput and goodput of one simulation."""
    requests = served.requests
    met = latencies(requests, served.first_token_seconds_N, served.finish_seconds_N, limits)
    occupied, span = served.arriving, float(requests.arrival_seconds_N[-1] - requests.arrival_seconds_N[0])
    if counted(requests, served.finish_seconds_N)[0].all():
        # Where the run is too short to leave its end out, all of it counts, as in throughput.
        occupied, span = served.whole, met.duration_seconds
    return LoadPoint(
        **dict(met),
        offered_requests_per_second=offered_requests_per_second,
        waiting_seconds=percentiles(served.admitted_seconds_N - requests.arrival_seconds_N),
        preemptions=sum(group.preemptions for group in served.groups),
        prefix_hit_share=served.prefix_hit_share,
        mean_requests_in_system=occupied.request_seconds / span,
        mean_decoding_sequences=occupied.decoded_tokens / max(1, occupied.decode_steps),
        peak_kv_tokens={group.spec.name: group.peak_kv_tokens for group in served.groups},
        busy_share={name: busy / span for name, busy in occupied.busy_seconds.items()},
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
