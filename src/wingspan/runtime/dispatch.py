"""Tokens to experts and back: the `Dispatcher` interface, and the flat dispatcher.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, S local slots,
M rows sent (one per token and expert), N rows received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from wingspan.runtime.buffers import Buffers
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport import Transport, exchange_with_gradient


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


class Handle(Protocol):
    """What a dispatcher remembers between dispatch and combine."""

    @property
    def traffic(self) -> Traffic:
        """Bytes this dispatch moved; combine moves as many rows the other way."""


HandleT = TypeVar("HandleT", bound=Handle)


class Dispatcher(Protocol[HandleT]):
    """Brings every token to the ranks of its experts, and their weighted results home.

    `dispatch` hands out what the experts compute on, and a handle that `combine` needs; a handle is used once.
    Both are collective: every rank calls them for every MoE layer, with zero tokens too. A library such as
    DeepEP plugs in here: `dispatch` maps to its dispatch call (`handle` keeps its handle), `combine` to its.
    """

    def dispatch(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> tuple[Received, HandleT]:
        """Send each token to the slots of its experts; returns the rows that came here."""

    def combine(self, y_ND: torch.Tensor, handle: HandleT) -> torch.Tensor:
        """Send the experts' outputs (rows as `Received` had them) home; returns the weighted sums (T, D)."""


@dataclass(frozen=True)
class FlatHandle:
    """The flat dispatcher's memory of one dispatch."""

    row_TK: torch.Tensor
    weights_TK: torch.Tensor
    by_slot_N: torch.Tensor | None
    sent_R: list[int]
    received_R: list[int]
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows."""
        return Traffic(
            [n * self.row_bytes for n in self.sent_R], [n * self.row_bytes for n in self.received_R]
        )


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

    def dispatch(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> tuple[Received, FlatHandle]:
        """See `Dispatcher.dispatch`."""
        T, K = experts_TK.shape
        R = self._transport.world.size
        rank_TK, local_TK = self._slots(experts_TK)
        slot_M = (rank_TK * self._widest + local_TK).flatten()
        order_M = torch.argsort(slot_M, stable=True)
        counts_RS = torch.bincount(slot_M, minlength=R * self._widest).view(R, self._widest)
        arriving_RS = self._transport.exchange_counts(counts_RS)
        sent_R, received_R = counts_RS.sum(1).tolist(), arriving_RS.sum(1).tolist()
        rows_ND = exchange(
            self._transport,
            self._buffers,
            "dispatch",
            take_rows(x_TD, order_M // K, self._buffers),
            received_R,
            sent_R,
        )
        by_slot_N, rows_ND = self._sort_by_slot(rows_ND, arriving_RS)
        row_TK = torch.empty_like(order_M)
        row_TK[order_M] = torch.arange(T * K, device=order_M.device)
        handle = FlatHandle(
            row_TK.view(T, K), weights_TK, by_slot_N, sent_R, received_R, x_TD.shape[1] * x_TD.element_size()
        )
        return Received(rows_ND, arriving_RS.sum(0).tolist()[: self._local_slots]), handle

    def combine(self, y_ND: torch.Tensor, handle: FlatHandle) -> torch.Tensor:
        """See `Dispatcher.combine`."""
        if handle.by_slot_N is not None:
            unsorted_N = torch.empty_like(handle.by_slot_N)
            unsorted_N[handle.by_slot_N] = torch.arange(len(unsorted_N), device=unsorted_N.device)
            y_ND = y_ND[unsorted_N]
        back_MD = exchange(self._transport, self._buffers, "combine", y_ND, handle.sent_R, handle.received_R)
        return weighted_sum(back_MD, handle.row_TK, handle.weights_TK)

    def _sort_by_slot(
        self, rows_ND: torch.Tensor, arriving_RS: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self._widest == 1:
            return None, rows_ND
        slot_N = torch.arange(self._widest, device=rows_ND.device).repeat(len(arriving_RS))
        slot_N = slot_N.repeat_interleave(arriving_RS.flatten(), output_size=rows_ND.shape[0])
        by_slot_N = torch.argsort(slot_N, stable=True)
        return by_slot_N, rows_ND[by_slot_N]


def take_rows(x_TD: torch.Tensor, index_M: torch.Tensor, buffers: Buffers) -> torch.Tensor:
    """`x_TD[index_M]`, into a reused buffer where no gradient needs the copy."""
    if torch.is_grad_enabled() and x_TD.requires_grad:
        return x_TD[index_M]
    out = buffers.take("send", (len(index_M), x_TD.shape[1]), x_TD.dtype, x_TD.device)
    return torch.index_select(x_TD.detach(), 0, index_M, out=out)


def exchange(
    transport: Transport,
    buffers: Buffers,
    name: str,
    sent_ND: torch.Tensor,
    received_R: Sequence[int],
    sent_R: Sequence[int],
) -> torch.Tensor:
    """One exchange of rows, waited for; keeps gradients where there are any, else reuses buffers."""
    if torch.is_grad_enabled():
        return exchange_with_gradient(transport, sent_ND, received_R, sent_R)
    received_ND = buffers.take(name, (sum(received_R), sent_ND.shape[1]), sent_ND.dtype, sent_ND.device)
    transport.exchange_rows(received_ND, sent_ND.contiguous(), received_R, sent_R).wait()
    return received_ND


def weighted_sum(rows_MD: torch.Tensor, row_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Sum of `weights_TK[t, k] * rows_MD[row_TK[t, k]]` over k: (T, D)."""
    T = row_TK.shape[0]
    if T == 0:
        # Keeps the empty inputs in the graph, so that the exchange back still happens in backward.
        return rows_MD.new_zeros((0, rows_MD.shape[1])) + (rows_MD.sum() + weights_TK.sum()) * 0
    return torch.nn.functional.embedding_bag(
        row_TK, rows_MD, mode="sum", per_sample_weights=weights_TK.to(rows_MD.dtype)
    )
