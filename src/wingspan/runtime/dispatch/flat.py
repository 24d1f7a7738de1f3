"""One row per (token, expert), straight to the expert's rank: the flat dispatcher.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, C chunks, S local slots,
M rows sent (one per token and expert), N rows received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.dispatcher import (
    Coming,
    Received,
    Route,
    Traffic,
    agree_on_counts,
    chunk_slices,
    exchange,
    order_by_slot,
    take_rows,
)
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.transport import Transport


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
    total_rows: int
    """Of all ranks in a chunk on average: they agree on it."""
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
        sending_RCS = counts_CRS.transpose(0, 1).reshape(R, -1)
        arriving_RCS, total = agree_on_counts(self._transport, sending_RCS, slot_TK.numel())
        arriving_CRS = arriving_RCS.reshape(R, chunks, S).transpose(0, 1)
        return [
            self._route_chunk(
                x_TD[part],
                slot_TK[part],
                weights_TK[part],
                counts_CRS[c],
                arriving_CRS[c],
                total // chunks,
                f"{lane}.{c}",
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
        total_rows: int,
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
            total_rows=total_rows,
            buffers=buffers,
        )

    def send(self, route: FlatRoute) -> Coming[Received]:
        """See `Dispatcher.send`."""
        sent_MD = take_rows(route.x_TD, route.token_M, self._buffers, f"send {route.buffers}")
        coming = self._exchange("dispatch", sent_MD, route.received_R, route.sent_R, route)
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
        coming = self._exchange("combine", y_ND, route.sent_R, route.received_R, route)
        return coming.then(lambda back_MD: weighted_sum(back_MD, route.row_TK, route.weights_TK))

    def _exchange(
        self, name: str, sent_MD: torch.Tensor, received_R: list[int], sent_R: list[int], route: FlatRoute
    ) -> Coming[torch.Tensor]:
        return exchange(
            self._transport,
            self._buffers,
            f"{name} {route.buffers}",
            sent_MD,
            received_R,
            sent_R,
            total_rows=route.total_rows,
        )


def weighted_sum(rows_MD: torch.Tensor, row_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Sum of `weights_TK[t, k] * rows_MD[row_TK[t, k]]` over k: (T, D)."""
    T = row_TK.shape[0]
    if T == 0:
        # Keeps the empty inputs in the graph, so that the exchange back still happens in backward.
        return rows_MD.new_zeros((0, rows_MD.shape[1])) + (rows_MD.sum() + weights_TK.sum()) * 0
    return torch.nn.functional.embedding_bag(
        row_TK, rows_MD, mode="sum", per_sample_weights=weights_TK.to(rows_MD.dtype)
    )
