"""Tokens to experts and back: the `Dispatcher` interface, and what its implementations share.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, S local slots, M rows sent,
N rows received.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.ranks.clock import Moment
from wingspan.runtime.transport.transport import Transport, exchange_with_gradient
from wingspan.runtime.transport.turns import is_bulk, turns_help
from wingspan.runtime.transport.work_handle import WorkHandle
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.running import RowPrecision

Value = TypeVar("Value")
Changed = TypeVar("Changed")


@dataclass(frozen=True)
class PeerBytes:
    """Bytes of one dispatch or combine, to and from each rank (its own included)."""

    sent_R: Sequence[int]
    received_R: Sequence[int]


class Handle(ABC):
    """What a dispatcher knows of a chunk once it has arrived, and needs to send its results home. Never changed."""

    @property
    @abstractmethod
    def traffic(self) -> PeerBytes:
        """Bytes of the dispatch."""

    @property
    def back_traffic(self) -> PeerBytes:
        """Bytes of the combine: as many rows the other way."""
        there = self.traffic
        return PeerBytes(there.received_R, there.sent_R)


RouteT = TypeVar("RouteT")
HandleT = TypeVar("HandleT", bound=Handle)


@dataclass(frozen=True)
class Received(Generic[HandleT]):
    """The rows that came to this rank's experts, sorted by slot, and how many each slot got.

    Outputs may be written over them, where no gradient is kept; after `send_back` they are not to be touched.
    """

    rows_ND: torch.Tensor
    counts_S: Counts
    handle: HandleT
    """For `send_back`."""


@dataclass(frozen=True)
class Capabilities:
    """What may be asked of a dispatcher.

    Args:
        kind: whose rows on the links its own are like: so they are predicted.
        training: gradients flow through it.
        overlap: several chunks or micro-batches may be on their way at once.
        precisions: in which rows may travel; `PrecisionDispatcher` changes their type and width around it.
    """

    kind: DispatcherKind
    training: bool = False
    overlap: bool = True
    precisions: frozenset[RowPrecision] = frozenset(RowPrecision)


class Pending(Generic[Value]):
    """Something on its way, to be waited for once.

    Args:
        pending: its transfers.
        value: makes it, when they have ended.
    """

    def __init__(self, pending: Sequence[WorkHandle], value: Callable[[], Value]) -> None:
        self._pending = pending
        self._value = value
        self.under_way: tuple[Moment, Moment] | None = None
        """After `wait`: from when to when; None: to the wait's end at the latest."""

    def wait(self) -> Value:
        """Block until it is here."""
        for transfer in self._pending:
            transfer.wait()
        return self._value()

    def then(self, change: Callable[[Value], Changed]) -> Pending[Changed]:
        """What `change` makes of it, when it is here."""
        return Pending(self._pending, lambda: change(self._value()))

    def together_with(self, other: Pending[Changed]) -> Pending[tuple[Value, Changed]]:
        """Both, when both are here."""
        return Pending((*self._pending, *other._pending), lambda: (self._value(), other._value()))


class Dispatcher(Protocol[RouteT, HandleT]):
    """Brings every token to the ranks of its experts, and their weighted results home.

    All three calls are collective: every rank makes them in the same order, with zero tokens too. `send` and
    `send_back` only start a transfer: what happens until `wait` happens beside it. A library such as DeepEP plugs
    in here, by `registry`: `route` maps to its layout call, `send` to its dispatch (whose handle comes with the rows),
    `send_back` to its combine, and `wait` to its events. A route is a frozen dataclass, made of tensors.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked of it."""

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[RouteT]:
        """Agree with all ranks on who sends how much, for `chunks` parts of the tokens at once.

        Args:
            x_TD: the tokens' hidden states.
            experts_TK: logical experts of each token.
            weights_TK: by which their outputs are summed.
            chunks: parts, in token order; the same number on all ranks.
            lane: which of several forwards in flight this is; each has buffers of its own.
        """

    def send(self, route: RouteT) -> Pending[Received[HandleT]]:
        """Start to send a chunk's tokens to their experts; what comes is for this rank's, in the tokens' dtype."""

    def send_back(self, y_ND: torch.Tensor, handle: HandleT) -> Pending[torch.Tensor]:
        """Start to send the experts' outputs (rows as `Received` had them) home: the chunk's weighted sums (T, D)."""


def chunk_slices(tokens: int, chunks: int) -> list[slice]:
    """The tokens in `chunks` parts as even as can be; some are empty where tokens are few."""
    bounds = [tokens * c // chunks for c in range(chunks + 1)]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def agree_on_counts(
    transport: Transport, send_RC: torch.Tensor, rows: Callable[[], int]
) -> Pending[tuple[torch.Tensor, int]]:
    """Start to send row r of `send_RC` to every rank r: the rows received, and the sum of all ranks' `rows`.

    That is 0 where nobody needs to know it.
    """
    totals = turns_help(transport.world)
    sent_RC = torch.nn.functional.pad(send_RC, (0, 1), value=rows()) if totals else send_RC.contiguous()
    received_RC = torch.empty_like(sent_RC)
    one_R = [1] * transport.world.size
    pending = transport.exchange_rows(received_RC, sent_RC, one_R, one_R)

    def agreed(counts_RC: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (counts_RC[:, :-1], sum(counts_RC[:, -1].tolist())) if totals else (counts_RC, 0)

    # The pair keeps the counts alive until they have left.
    return Pending((pending,), lambda: (received_RC, sent_RC)[0]).then(agreed)


def order_by_slot(arriving_RS: torch.Tensor, rows: int) -> torch.Tensor:
    """The order that sorts so many rows by slot, which come sorted by source rank and then slot."""
    R, S = arriving_RS.shape
    slot_N = (
        torch.arange(S, device=arriving_RS.device)
        .repeat(R)
        .repeat_interleave(arriving_RS.flatten(), output_size=rows)
    )
    return torch.argsort(slot_N, stable=True)


def inverse(order_N: torch.Tensor) -> torch.Tensor:
    """Where each item went: the order that undoes that one."""
    inverse_N = torch.empty_like(order_N)
    inverse_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    return inverse_N


def take_rows(x_TD: torch.Tensor, index_M: torch.Tensor, buffers: Buffers, name: str) -> torch.Tensor:
    """`x_TD[index_M]`, into a reused buffer where no gradient needs the copy."""
    if torch.is_grad_enabled() and x_TD.requires_grad:
        return x_TD[index_M]
    out = buffers.take(name, (len(index_M), x_TD.shape[1]), x_TD.dtype, x_TD.device)
    return torch.index_select(x_TD.detach(), 0, index_M, out=out)


def exchange(
    transport: Transport,
    buffers: Buffers,
    name: str,
    sent_ND: torch.Tensor,
    received_R: Sequence[int],
    sent_R: Sequence[int],
    *,
    total_rows: int = 0,
) -> Pending[torch.Tensor]:
    """Start an exchange of rows, `total_rows` of all ranks as they agreed.

    Where gradients are kept it is over on return; else buffers are reused.
    """
    if torch.is_grad_enabled():
        arrived_ND = exchange_with_gradient(transport, sent_ND, received_R, sent_R)
        return Pending((), lambda: arrived_ND)
    sent_ND = sent_ND.contiguous()
    received_ND = buffers.take(name, (sum(received_R), sent_ND.shape[1]), sent_ND.dtype, sent_ND.device)
    bulk = is_bulk(total_rows * sent_ND.shape[1] * sent_ND.element_size(), transport.world.size)
    pending = transport.exchange_rows(received_ND, sent_ND, received_R, sent_R, bulk=bulk)
    # The pair keeps the rows alive until they have left.
    return Pending((pending,), lambda: (received_ND, sent_ND)[0])


def weighted_bags(
    row_P: torch.Tensor, rows_YD: torch.Tensor, weights_P: torch.Tensor, begin_X: torch.Tensor | None = None
) -> torch.Tensor:
    """Sums of weighted rows, rounded once: (X, D).

    A weight finer than the rows' dtype counts as two of that dtype, its rounded value and what that leaves: the
    kernel adds in FP32 but takes weights of the rows' dtype only.

    Args:
        row_P: which rows, all bags' one after another; or (X, K), a bag per row of it.
        rows_YD: the rows.
        weights_P: of each, shaped as `row_P`.
        begin_X: where each bag begins; None with `row_P` (X, K).
    """
    high_P = weights_P.to(rows_YD.dtype)
    if weights_P.dtype.itemsize > rows_YD.dtype.itemsize:
        low_P = (weights_P - high_P).to(rows_YD.dtype)
        high_P = torch.stack((high_P, low_P), dim=-1).flatten(-2)
        row_P = torch.stack((row_P, row_P), dim=-1).flatten(-2)
        begin_X = None if begin_X is None else begin_X * 2
    return torch.nn.functional.embedding_bag(row_P, rows_YD, begin_X, mode="sum", per_sample_weights=high_P)
