"""How rows move between ranks: a small interface, and its torch.distributed implementation.

Shapes: R ranks, N rows, B bytes per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist

from wingspan.runtime.ranks.world import World, within
from wingspan.runtime.transport.turns import Exchange, Turns, turns, turns_help
from wingspan.runtime.transport.work_handle import WorkHandle

PEERS_WAIT = timedelta(minutes=10)
"""Longest a rank waits in a collective for a live but slow peer; a dead one is noticed at once."""


class Transport(Protocol):
    """Moves bytes between the ranks of one group. Every rank makes the same calls in the same order."""

    world: World

    @property
    def holds_host(self) -> bool:
        """Whether waiting for a transfer holds the host up. With NCCL only a stream of the GPU waits."""

    def exchange_counts(self, send_RC: torch.Tensor) -> torch.Tensor:
        """Row r of every rank's `send_RC` (int64) goes to rank r; returns the R rows received."""

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        """Start to send `sent_R[r]` rows to each rank r, in order, and to receive `received_R[r]` from it.

        Both buffers are contiguous, of one dtype, rows along dimension 0; zero rows are allowed anywhere. `bulk`,
        the same on all ranks, says that much travels: a transport may then spend messages to use its links better.
        """

    def share(self, value_X: torch.Tensor) -> torch.Tensor:
        """Every rank's `value_X` (one shape on all ranks), stacked in rank order: (R, ...)."""

    def gather(self, value: object) -> list[object] | None:
        """Every rank's value at rank 0, in rank order; None elsewhere."""

    def broadcast(self, value: object) -> object:
        """Rank 0's value, on every rank."""

    def split(self, color: int) -> Transport:
        """A transport among the ranks that gave the same color, numbered in their order.

        They count as one node, or, where each is on another one, as a node each.
        """

    def close(self) -> None:
        """Leave the group."""


class TorchTransport:
    """torch.distributed: gloo for CPU tensors, NCCL for CUDA ones. The process group must be initialised."""

    def __init__(self, world: World, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        self.world = world
        self._device = device
        self._group = group

    @property
    def holds_host(self) -> bool:
        """See `Transport`."""
        return self._device.type == "cpu"

    def exchange_counts(self, send_RC: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        send_RC = send_RC.contiguous()
        received_RC = torch.empty_like(send_RC)
        dist.all_to_all_single(received_RC, send_RC, group=self._group)
        return received_RC

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        """See `Transport`. In bulk, nodes take turns on the CPU; NCCL has ways of its own."""
        # Bytes, because the backends do not know every dtype (gloo has no FP8, nor BF16 everywhere).
        exchange = Exchange(as_bytes(received_NB), as_bytes(sent_NB), received_R, sent_R)
        if bulk and self._device.type == "cpu" and turns_help(self.world):
            return Turns(turns(exchange, self.world), self._start)
        return self._start(exchange)

    def _start(self, exchange: Exchange) -> WorkHandle:
        # Of NCCL's, `wait` makes the current stream wait, not the caller.
        work: dist.Work = dist.all_to_all_single(
            exchange.received_NB,
            exchange.sent_NB,
            list(exchange.received_R),
            list(exchange.sent_R),
            group=self._group,
            async_op=True,
        )
        return work

    def share(self, value_X: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        value_X = value_X.to(self._device)
        shared_R = [torch.empty_like(value_X) for _ in range(self.world.size)]
        dist.all_gather(shared_R, value_X, group=self._group)
        return torch.stack(shared_R).cpu()

    def gather(self, value: object) -> list[object] | None:
        """See `Transport`."""
        values: list[object] | None = [None] * self.world.size if self.world.rank == 0 else None
        dist.gather_object(value, values, group=self._group, group_dst=0)
        return values

    def broadcast(self, value: object) -> object:
        """See `Transport`."""
        box = [value]
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        return box[0]

    def split(self, color: int) -> Transport:
        """See `Transport`."""
        color_R = self.share(torch.tensor(color)).tolist()
        members = {c: [r for r, other in enumerate(color_R) if other == c] for c in sorted(set(color_R))}
        # Every rank takes part in the making of every group.
        groups = {c: dist.new_group(ranks, timeout=PEERS_WAIT) for c, ranks in members.items()}
        return TorchTransport(within(self.world, members[color]), self._device, groups[color])

    def close(self) -> None:
        """See `Transport`."""
        dist.destroy_process_group(self._group)


def as_bytes(rows_NX: torch.Tensor) -> torch.Tensor:
    """See the memory as rows of bytes; torch refuses to reinterpret some strides of tensors without elements."""
    if not rows_NX.numel():
        return rows_NX.new_empty((rows_NX.shape[0], 0), dtype=torch.uint8)
    if rows_NX.stride(-1) != 1:
        # Flat and back: a dimension of one element may have any stride, and torch minds it.
        rows_NX = rows_NX.view(-1).view(rows_NX.shape)
    return rows_NX.view(torch.uint8)


class LocalTransport:
    """A group of one rank: nothing travels. Lets one process run the same code without a process group."""

    holds_host = False

    def __init__(self) -> None:
        self.world = World(rank=0, size=1, ranks_per_node=1, local_rank=0)

    def exchange_counts(self, send_RC: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        return send_RC.clone()

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],  # noqa: ARG002 - the interface's
        sent_R: Sequence[int],  # noqa: ARG002
        *,
        bulk: bool = False,  # noqa: ARG002
    ) -> WorkHandle:
        """See `Transport`."""
        received_NB.copy_(sent_NB)
        return _Done()

    def share(self, value_X: torch.Tensor) -> torch.Tensor:
        """See `Transport`."""
        return value_X[None].cpu()

    def gather(self, value: object) -> list[object] | None:
        """See `Transport`."""
        return [value]

    def broadcast(self, value: object) -> object:
        """See `Transport`."""
        return value

    def split(self, color: int) -> Transport:  # noqa: ARG002 - the interface's
        """See `Transport`."""
        return self

    def close(self) -> None:
        """See `Transport`."""
        return


class _Done:
    def wait(self) -> None:
        return


class _ExchangeRows(torch.autograd.Function):
    """A blocking exchange of rows; its gradient is the exchange back."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx,
        sent_ND: torch.Tensor,
        transport: Transport,
        received_R: Sequence[int],
        sent_R: Sequence[int],
    ) -> torch.Tensor:
        ctx.transport, ctx.received_R, ctx.sent_R = transport, received_R, sent_R  # type: ignore[attr-defined]
        return _exchange(transport, sent_ND, received_R, sent_R)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, gradient_ND: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        back = _exchange(ctx.transport, gradient_ND, ctx.sent_R, ctx.received_R)  # type: ignore[attr-defined]
        return back, None, None, None


def exchange_with_gradient(
    transport: Transport, sent_ND: torch.Tensor, received_R: Sequence[int], sent_R: Sequence[int]
) -> torch.Tensor:
    """`Transport.exchange_rows`, waited for, through which gradients flow back to the senders' rows."""
    return _ExchangeRows.apply(sent_ND, transport, received_R, sent_R)  # type: ignore[no-untyped-call]


def _exchange(
    transport: Transport, sent_ND: torch.Tensor, received_R: Sequence[int], sent_R: Sequence[int]
) -> torch.Tensor:
    received_ND = sent_ND.new_empty((sum(received_R), *sent_ND.shape[1:]))
    transport.exchange_rows(received_ND, sent_ND.contiguous(), received_R, sent_R).wait()
    return received_ND
