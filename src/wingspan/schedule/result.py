"""What an executor reports about one step: the same type from the simulator and from the runtime.

Lists indexed by rank have one entry per rank of the EP group. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult


class Operation(StrEnum):
    """What a rank can be doing in a step."""

    EMBED = "embed"
    ATTENTION = "attention"
    DENSE = "dense"
    GATE = "gate"
    SHARED_EXPERT = "shared_expert"
    DISPATCH = "dispatch"
    EXPERT = "expert"
    COMBINE = "combine"
    HEAD = "head"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    WAIT = "wait"
    OTHER = "other"


class Stream(StrEnum):
    """Where an operation runs on a rank: the two go on side by side."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"


class Span(FrozenResult):
    """One stretch of a timeline: what one stream of one rank did, when, and with whom."""

    rank: int
    stream: Stream
    operation: Operation
    start_seconds: float
    end_seconds: float
    layer: int | None = None
    micro_batch: int | None = None
    chunk: int | None = None
    peer: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None


class LinkUse(FrozenResult):
    """How busy one class of link was: bytes through its most loaded member, and its busy share of the step."""

    link: str
    busiest_bytes: float
    total_bytes: float
    utilisation: float = Field(ge=0)


class StepReport(FrozenResult):
    """One step of a deployment, predicted or measured."""

    source: Literal["predicted", "measured", "paced"]
    phase: Literal["prefill", "decode", "mixed"]
    ranks: int
    ranks_per_node: int
    experts_per_rank: int
    schedule: str
    tokens: int = Field(description="tokens that entered the step, over all ranks")
    step_seconds: float = Field(description="the slowest rank's time for the step")
    steps: int = Field(default=1, description="steps over which the figures are means")
    tokens_per_second: float
    operation_seconds: dict[Operation, list[float]] = Field(description="busy time per operation and rank")
    exposed_communication_seconds: list[float] = Field(
        description="per rank: waiting for a transfer with no compute to do"
    )
    sent_within_node_bytes: list[int] = Field(description="per rank, to other ranks of its node")
    sent_across_nodes_bytes: list[int] = Field(description="per rank, to ranks of other nodes")
    received_within_node_bytes: list[int] = Field(description="per rank, from other ranks of its node")
    received_across_nodes_bytes: list[int] = Field(description="per rank, from ranks of other nodes")
    load_tokens: list[list[int]] = Field(description="tokens per (MoE layer, logical expert)")
    imbalance: float = Field(description="max / mean tokens per expert, per layer, then averaged over layers")
    memory_bytes: dict[str, list[int]] = Field(description="per part (weights, kv_cache, ...) and rank")
    peak_memory_bytes: list[int] = Field(description="per rank")
    links: list[LinkUse] = Field(default_factory=list)
    utilisation: dict[str, float] = Field(
        default_factory=dict, description="share of peak: compute, memory bandwidth"
    )
    relative_error: float | None = Field(
        default=None, ge=0, description="predicted: half-width of the step time's error bar, as a share of it"
    )
    slowest_rank: int
    slowest_reason: str = ""
    notes: list[str] = Field(default_factory=list, description="conditions and caveats of these figures")

    @property
    def overhead(self) -> float:
        """Exposed communication of the mean rank over step time (docs/words.md)."""
        if not self.step_seconds:
            return 0.0
        return sum(self.exposed_communication_seconds) / self.ranks / self.step_seconds
