"""What a serving simulation reports: latencies and throughput of one deployment at one or more loads.

Times are seconds. TTFT is the time from a request's arrival to its first token, TPOT the mean time between its
later tokens, end to end the time from arrival to the last token.
"""

from __future__ import annotations

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult
from wingspan.specs.reading import Spec


class Percentiles(FrozenResult):
    """How one latency is spread over the requests, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    highest: float


class ServingLimits(Spec):
    """What the latencies must stay under; None sets no limit."""

    ttft_p99_seconds: float | None = Field(default=None, gt=0)
    tpot_p99_seconds: float | None = Field(default=None, gt=0)

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self.ttft_p99_seconds is not None or self.tpot_p99_seconds is not None


class ServingGroup(FrozenResult):
    """One group of ranks that serves: what it may hold and do in a step. A home is where sequences live."""

    name: str = Field(description="prefill and decode, prefill, or decode")
    ranks: int
    homes: int = Field(description="places where sequences live: ranks, or sets of tensor-parallel ranks")
    kv_tokens_per_home: int = Field(description="tokens whose KV cache fits on one home")
    sequences_per_home: int = Field(description="most requests that one home holds at a time")
    tokens_per_step: int = Field(
        description="most tokens that one home computes in a step, prefill and decode"
    )


class Latencies(FrozenResult):
    """What the requests of one load met, whether a server answered them or a simulation did."""

    requests: int
    duration_seconds: float = Field(description="from the first arrival to the last token")
    ttft_seconds: Percentiles
    tpot_seconds: Percentiles = Field(description="of the requests with at least two output tokens")
    end_to_end_seconds: Percentiles
    completed_requests_per_second: float = Field(
        description="while requests still arrive, as are all throughputs; over the whole run where that is too short"
    )
    output_tokens_per_second: float
    prompt_tokens_per_second: float
    goodput_requests_per_second: float = Field(description="completed within every limit, a second")
    within_limits_share: float = Field(ge=0, le=1)
    meets_limits: bool = Field(description="p99 of TTFT and of TPOT are within their limits")


class LoadPoint(Latencies):
    """One simulated load: requests arriving at a rate, and what they met."""

    offered_requests_per_second: float
    waiting_seconds: Percentiles = Field(description="from arrival to admission, part of TTFT")
    preemptions: int = Field(
        description="how often a request was put back for want of room, and computed again"
    )
    prefix_hit_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="prompt tokens that prefix caching found computed; None without it",
    )
    price_per_million_output_tokens: float | None = Field(
        default=None,
        description="of all GPUs, prompts included, in the currency of the price; None without one",
    )
    mean_requests_in_system: float = Field(description="while requests still arrive, waiting or being served")
    mean_decoding_sequences: float = Field(
        description="over decode steps while requests still arrive, in the whole group"
    )
    peak_kv_tokens: dict[str, int] = Field(description="per group: most KV reserved on any home at any time")
    busy_share: dict[str, float] = Field(
        description="per group: share of the time with a step running, while requests still arrive"
    )


class ServingReport(FrozenResult):
    """A deployment under one or more loads, lowest load first."""

    conditions: dict[str, str] = Field(description="model, cluster, requests: what a reader must know")
    ranks: int = Field(description="over all groups")
    groups: list[ServingGroup]
    limits: ServingLimits
    points: list[LoadPoint]
    highest_load_requests_per_second: float | None = Field(
        default=None,
        description="highest load found that meets the limits; None if not searched or none does",
    )
    notes: list[str] = Field(default=[])
