"""What an executor reports about one step: the same type from the simulator and from the runtime.

Lists indexed by rank have one entry per rank of the EP group. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult
from wingspan.specs.memory import MemoryPart


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
    DRAFT = "draft"
    """Layers that predict tokens to be tried ahead in the next step."""
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_REDUCE = "all_reduce"
    WAIT = "wait"
    ENGINE = "engine"
    """What an engine adds to its kernels."""
    OTHER = "other"


class Stream(StrEnum):
    """Where an operation runs on a rank: the two go on side by side."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"


class Span(FrozenResult):
    """One stretch of a timeline: what one stream of one rank did, when, and to whom it sent.

    `Operation.WAIT` on the compute stream is waiting for slower ranks; a gap beside a transfer is a transfer exposed.
    """

    rank: int
    stream: Stream
    operation: Operation
    start_seconds: float
    end_seconds: float
    layer: int | None = None
    micro_batch: int | None = None
    chunk: int | None = None
    peers: tuple[int, ...] = Field(default=(), description="ranks that rows of this transfer leave for")
    peer_bytes: tuple[int, ...] = Field(default=(), description="bytes to each of `peers`; measured only")
    sent_bytes: int | None = Field(default=None, description="to all other ranks; measured only")
    received_bytes: int | None = Field(default=None, description="from all other ranks; measured only")


class StepSpan(FrozenResult):
    """One step of one rank: from when it began until it ended there."""

    rank: int
    phase: Literal["prefill", "decode", "mixed"]
    number: int = Field(description="among the run's steps of this phase, from 1; the same on every rank")
    tokens: int | None = Field(default=None, description="of this rank; measured only")
    start_seconds: float
    end_seconds: float


class LinkUse(FrozenResult):
    """How busy one class of link was: bytes through its most loaded member, and its busy share of the step."""

    link: str
    busiest_bytes: float
    total_bytes: float
    utilisation: float = Field(ge=0)


class StepReport(FrozenResult):
    """One step of a deployment, predicted or measured: every figure is of one step, the mean one where several ran.

    On each rank the step is what it spent on every operation: `operation_seconds` less `hidden_seconds`, waiting
    included, add up to `step_seconds`.
    """

    source: Literal["predicted", "measured", "paced"]
    phase: Literal["prefill", "decode", "mixed"]
    ranks: int
    ranks_per_node: int = Field(
        description="ranks that share the fast link; only bytes beyond it cross nodes"
    )
    experts_per_rank: int = Field(description="slots of a rank in each MoE layer")
    schedule: str
    tokens: int = Field(description="tokens that entered the step, over all ranks, padding left out")
    step_seconds: float = Field(description="from the step's start to the slowest rank's end")
    steps: int = Field(default=1, description="steps over which the figures are means")
    tokens_per_second: float = Field(description="over all ranks")
    operation_seconds: dict[Operation, list[float]] = Field(
        description="per operation and rank: computing; transfers while under way, without waiting for slower ranks; "
        "`wait`: waiting for slower ranks, up to the step's end; `engine`: what an engine adds, predicted only; "
        "`other`: what belongs to no operation"
    )
    hidden_seconds: dict[Operation, list[float]] = Field(
        default={}, description="per transfer and rank, the part during which the rank computed"
    )
    exposed_communication_seconds: list[float] = Field(
        description="per rank, nothing to compute: transfers that are not hidden, and `wait`"
    )
    sent_within_node_bytes: list[int] = Field(
        description="per rank, dispatch and combine together, to other ranks of its node"
    )
    sent_across_nodes_bytes: list[int] = Field(description="the same, to ranks of other nodes")
    received_within_node_bytes: list[int] = Field(description="the same, from other ranks of its node")
    received_across_nodes_bytes: list[int] = Field(description="the same, from ranks of other nodes")
    load_tokens: list[list[float]] = Field(
        description="tokens per (MoE layer, logical expert); a layer's sum is tokens x experts per token"
    )
    imbalance: float = Field(description="of `load_tokens`: max / mean per layer, then averaged over layers")
    memory_bytes: dict[MemoryPart, list[int]] = Field(
        description="per part and rank; parts that an executor cannot tell apart are in `other`"
    )
    peak_memory_bytes: list[int] = Field(description="per rank, all parts together")
    links: list[LinkUse] = Field(default=[], description="predicted only")
    utilisation: dict[str, float] = Field(
        default={}, description="predicted only: share of peak, compute and memory bandwidth"
    )
    relative_error: float | None = Field(
        default=None,
        ge=0,
        description="predicted only: nine of ten measured steps lie between step_seconds / (1 + this) and "
        "step_seconds x (1 + this)",
    )
    rests_on: str = Field(
        default="", description="predicted only: what the figures were fitted on, in one line"
    )
    slowest_rank: int = Field(
        description="the rank that spends most on its own operations, for which others wait"
    )
    slowest_reason: str = Field(default="", description="what it spends more on than the mean rank")
    notes: list[str] = Field(default=[], description="conditions and caveats of these figures")

    @property
    def step_range_seconds(self) -> tuple[float, float] | None:
        """Between which nine of ten measured steps lie; None where nothing says how far a prediction is off."""
        if self.relative_error is None:
            return None
        return self.step_seconds / (1 + self.relative_error), self.step_seconds * (1 + self.relative_error)

    @property
    def overhead(self) -> float:
        """Exposed communication of the mean rank as a share of the step's time."""
        if not self.step_seconds:
            return 0.0
        return sum(self.exposed_communication_seconds) / self.ranks / self.step_seconds

    @property
    def spent_seconds(self) -> dict[Operation, list[float]]:
        """Per operation and rank what adds up to the step: `operation_seconds` without what is hidden."""
        nothing = [0.0] * self.ranks
        return {
            operation: [
                busy - hidden
                for busy, hidden in zip(seconds, self.hidden_seconds.get(operation, nothing), strict=True)
            ]
            for operation, seconds in self.operation_seconds.items()
        }
