"""Tokens to experts and back: the `Dispatcher` interface, and the flat dispatcher.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, C chunks, S local slots,
M rows sent (one per token and expert), N rows received.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch

from wingspan.runtime.buffers import Buffers
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport import Pending, Transport, exchange_with_gradient

Value = TypeVar("Value")
Changed = TypeVar("Changed")


@dataclass(frozen=True)
class Received:
    """The rows that came to this rank's experts, sorted by slot, and how many each slot got."""

    rows_ND: torch.Tensor
    counts_S: list[int]


@dataclass(frozen=True)
class Traffic:
    """Bytes of one dispatch or combine, to and from each rank (its own included)."""

    sent_R: list[int]
    received_R: list[int]


class Route(ABC):
    """Where a chunk of tokens goes: what a dispatcher remembers from `route` to `send_back`."""

    @property
    @abstractmethod
    def traffic(self) -> Traffic:
        """Bytes of the dispatch."""

    @property
    def back_traffic(self) -> Traffic:
        """Bytes of the combine: as many rows the other way."""
        there = self.traffic
        return Traffic(there.received_R, there.sent_R)


RouteT = TypeVar("RouteT", bound=Route)


class Coming(Generic[Value]):
    """Something on its way, to be waited for once.

    Args:
        pending: its transfers.
        value: makes it, when they have ended.
    """

    def __init__(self, pending: Sequence[Pending], value: Callable[[], Value]) -> None:
        self._pending = pending
        self._value = value
        self.ended_seconds = 0.0
        """After `wait`: when the last transfer ended, on the clock of `time.monotonic`."""

    def wait(self) -> Value:
        """Block until it is here."""
        ends = [transfer.wait() for transfer in self._pending]
        self.ended_seconds = max((end for end in ends if end is not None), default=time.monotonic())
        return self._value()

    def then(self, change: Callable[[Value], Changed]) -> Coming[Changed]:
        """What `change` makes of it, when it is here."""
        return Coming(self._pending, lambda: change(self._value()))

    def beside(self, other: Coming[Changed]) -> Coming[tuple[Value, Changed]]:
        """Both, when both are here."""
        return Coming((*self._pending, *other._pending), lambda: (self._value(), other._value()))


class Dispatcher(Protocol[RouteT]):
    """Brings every token to the ranks of its experts, and their weighted results home.

    All three calls are collective: every rank makes them in the same order, with zero tokens too. `send` and
    `send_back` only start a transfer: what happens until `wait` happens beside it. A library such as DeepEP plugs
    in here: `route` maps to its layout call, `send` to its dispatch (the route keeps its handle), `send_back` to its
    combine, and `wait` to its events.
    """

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

    def send(self, route: RouteT) -> Coming[Received]:
        """Start to send a chunk's tokens to their experts; what comes is for this rank's experts."""

    def send_back(self, y_ND: torch.Tensor, route: RouteT) -> Coming[torch.Tensor]:
        """Start to send the experts' outputs (rows as `Received` had them) home: the chunk's weighted sums (T, D)."""


@dataclass(frozen=True)
class FlatRoute(Route):
    """The flat dispatcher's route of one chunk."""

    x_TD: torch.Tensor
    weights_TK: torch.Tensor
    token_M: torch.Tensor
    """Token of each row sent, in the order sent."""
    row_TK: torch.Tensor
    """The row that each (token, expert) travels in."""
    by_slot_N: torch.Tensor | None
    """Order that sorts the rows received by slot; None where they come so."""
    counts_S: list[int]
    sent_R: list[int]
    received_R: list[int]
    buffers: str
    """Name of this chunk's buffers."""

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows."""
        row_bytes = self.x_TD.shape[1] * self.x_TD.element_size()
        return Traffic([n * row_bytes for n in self.sent_R], [n * row_bytes for n in self.received_R])


class FlatDispatcher:
    """One row per (token, expert), straight to the expert's rank.

    The counts per (rank, slot) travel first and tell the receiver everything: rows arrive sorted by source and
    slot, so no row carries a header. The weights stay at home and are applied there.
    """

    def __init__(
        self, transport: Transport, slots: SlotMap, local_slots_R: Sequence[int], buffers: Buffers
    ) -> None:
        self._transport = transport
        self._slots = slots
        self._local_slots = int(local_slots_R[transport.world.rank])
        self._widest = max(1, *local_slots_R)
        self._buffers = buffers

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[FlatRoute]:
        """See `Dispatcher.route`."""
        R, S = self._transport.world.size, self._widest
        rank_TK, local_TK = self._slots(experts_TK)
        slot_TK = rank_TK * S + local_TK
        parts = chunk_slices(len(x_TD), chunks)
        counts_CRS = torch.stack(
            [torch.bincount(slot_TK[part].flatten(), minlength=R * S).view(R, S) for part in parts]
        )
        arriving_RCS = self._transport.exchange_counts(counts_CRS.transpose(0, 1).reshape(R, -1))
        arriving_CRS = arriving_RCS.view(R, chunks, S).transpose(0, 1)
        return [
            self._route_chunk(
                x_TD[part], slot_TK[part], weights_TK[part], counts_CRS[c], arriving_CRS[c], f"{lane}.{c}"
            )
            for c, part in enumerate(parts)
        ]

    def _route_chunk(
        self,
        x_TD: torch.Tensor,
        slot_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        counts_RS: torch.Tensor,
        arriving_RS: torch.Tensor,
        buffers: str,
    ) -> FlatRoute:
        T, K = slot_TK.shape
        order_M = torch.argsort(slot_TK.flatten(), stable=True)
        row_M = torch.empty_like(order_M)
        row_M[order_M] = torch.arange(T * K, device=order_M.device)
        return FlatRoute(
            x_TD=x_TD,
            weights_TK=weights_TK,
            token_M=order_M // K,
            row_TK=row_M.view(T, K),
            by_slot_N=None if self._widest == 1 else order_by_slot(arriving_RS),
            counts_S=arriving_RS.sum(0).tolist()[: self._local_slots],
            sent_R=counts_RS.sum(1).tolist(),
            received_R=arriving_RS.sum(1).tolist(),
            buffers=buffers,
        )

    def send(self, route: FlatRoute) -> Coming[Received]:
        """See `Dispatcher.send`."""
        sent_MD = take_rows(route.x_TD, route.token_M, self._buffers, f"send {route.buffers}")
        coming = self._exchange(f"dispatch {route.buffers}", sent_MD, route.received_R, route.sent_R)
        order_N = route.by_slot_N
        return coming.then(
            lambda rows_ND: Received(rows_ND if order_N is None else rows_ND[order_N], route.counts_S)
        )

    def send_back(self, y_ND: torch.Tensor, route: FlatRoute) -> Coming[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        if route.by_slot_N is not None:
            unsorted_N = torch.empty_like(route.by_slot_N)
            unsorted_N[route.by_slot_N] = torch.arange(len(unsorted_N), device=unsorted_N.device)
            y_ND = y_ND[unsorted_N]
        coming = self._exchange(f"combine {route.buffers}", y_ND, route.sent_R, route.received_R)
        return coming.then(lambda back_MD: weighted_sum(back_MD, route.row_TK, route.weights_TK))

    def _exchange(
        self, name: str, sent_MD: torch.Tensor, received_R: list[int], sent_R: list[int]
    ) -> Coming[torch.Tensor]:
        return exchange(self._transport, self._buffers, name, sent_MD, received_R, sent_R)


def chunk_slices(tokens: int, chunks: int) -> list[slice]:
    """The tokens in `chunks` parts as even as can be; some are empty where tokens are few."""
    bounds = [tokens * c // chunks for c in range(chunks + 1)]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def order_by_slot(arriving_RS: torch.Tensor) -> torch.Tensor:
    """The order that sorts rows by slot, of rows that come sorted by source rank and then slot."""
    R, S = arriving_RS.shape
    slot_N = torch.arange(S, device=arriving_RS.device).repeat(R).repeat_interleave(arriving_RS.flatten())
    return torch.argsort(slot_N, stable=True)


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
) -> Coming[torch.Tensor]:
    """Start an exchange of rows. Where gradients are kept it is over on return; else buffers are reused."""
    if torch.is_grad_enabled():
        arrived_ND = exchange_with_gradient(transport, sent_ND, received_R, sent_R)
        return Coming((), lambda: arrived_ND)
    sent_ND = sent_ND.contiguous()
    received_ND = buffers.take(name, (sum(received_R), sent_ND.shape[1]), sent_ND.dtype, sent_ND.device)
    pending = transport.exchange_rows(received_ND, sent_ND, received_R, sent_R)
    # The pair keeps the rows alive until they have left.
    return Coming((pending,), lambda: (received_ND, sent_ND)[0])


def weighted_sum(rows_MD: torch.Tensor, row_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Sum of `weights_TK[t, k] * rows_MD[row_TK[t, k]]` over k: (T, D)."""
    T = row_TK.shape[0]
    if T == 0:
        # Keeps the empty inputs in the graph, so that the exchange back still happens in backward.
        return rows_MD.new_zeros((0, rows_MD.shape[1])) + (rows_MD.sum() + weights_TK.sum()) * 0
    return torch.nn.functional.embedding_bag(
        row_TK, rows_MD, mode="sum", per_sample_weights=weights_TK.to(rows_MD.dtype)
    )
