"""What a step's layers need to know beyond their inputs, and how a schedule tells them what to do in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from wingspan.runtime.dispatch.streamed import CommunicationStream
from wingspan.schedule.result import Operation
from wingspan.schedule.schedule import Layers, Schedule, schedule_of, sequential
from wingspan.specs.execution import parse_runnable_schedule

_OF_LAYER = frozenset({Operation.DISPATCH, Operation.SHARED_EXPERT, Operation.EXPERT, Operation.COMBINE})

# One MoE layer behind its attention: every layer of a step follows the same order.
_ONE_LAYER = Layers(count=1, shared_expert=True)
_SHARED_BEFORE = Layers(count=1, shared_expert=True, shared_beside_dispatch=False)


@dataclass(frozen=True)
class Flow:
    """A schedule as the runtime follows it: how many micro-batches and chunks, and a MoE layer's own operations."""

    name: str
    micro_batches: int
    chunks: int
    of_layer: tuple[tuple[Operation, int], ...]
    """(operation, chunk) in order, from the first dispatch to the last combine of one micro-batch."""

    @property
    def overlaps(self) -> bool:
        """Whether experts compute while other rows travel."""
        return self.micro_batches > 1 or self.chunks > 1

    @property
    def shared_expert_first(self) -> bool:
        """Whether a layer's shared expert is computed before its rows leave, and not beside their way."""
        return self.of_layer[0][0] is Operation.SHARED_EXPERT

    @classmethod
    def of(cls, schedule: Schedule) -> Flow:
        """Read off a schedule of one MoE layer."""
        tasks = [t for t in schedule.tasks if t.operation in _OF_LAYER and t.micro_batch == 0]
        return cls(
            schedule.name,
            schedule.micro_batches,
            schedule.chunks,
            tuple((t.operation, t.chunk) for t in tasks),
        )


SEQUENTIAL = Flow.of(sequential(_ONE_LAYER))


def flow_named(name: str, *, shared_beside_dispatch: bool = True) -> Flow:
    """The flow of a schedule's text, as `parse_runnable_schedule` reads it; raises `InputError` for another.

    Args:
        name: the text.
        shared_beside_dispatch: shared experts compute while rows travel; else before they leave.
    """
    layer = _ONE_LAYER if shared_beside_dispatch else _SHARED_BEFORE
    return Flow.of(schedule_of(*parse_runnable_schedule(name), layer))


def go_on() -> None:
    """What a forward does at a pause when it has nobody to give way to."""


@dataclass(frozen=True)
class TokenRows:
    """Those rows of a flattened batch that are tokens.

    Args:
        at_M: their numbers, rising.
        rows: of the batch, with padding.
    """

    at_M: torch.Tensor
    rows: int


@dataclass
class Step:
    """Set before each forward, read by every layer in it."""

    tokens: TokenRows | None = None
    """Which rows of the flattened batch are tokens; None: all. Padding is never dispatched."""
    flow: Flow = SEQUENTIAL
    micro_batch: int = 0
    pause: Callable[[], None] = field(default=go_on)
    """Called when a transfer is under way: another micro-batch may go on here."""
    communication: CommunicationStream | None = field(
        default_factory=lambda: CommunicationStream(torch.device("cpu"))
    )
    """Where exchanges run beside compute; None: the transport sees to that itself, as NCCL does."""

    @property
    def micro_batch_or_none(self) -> int | None:
        """Which micro-batch is computed; None where there is but one."""
        return self.micro_batch if self.flow.micro_batches > 1 else None
