"""One row per (token, expert), straight to the expert's rank: the flat dispatcher.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, C chunks, S local slots,
X the slots of a rank in all chunks one after another, M rows sent (one per token and expert), N rows received.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.counts import Counts, counted
from wingspan.runtime.dispatch.dispatcher import (
    Capabilities,
    Handle,
    PeerBytes,
    Pending,
    Received,
    agree_on_counts,
    chunk_slices,
    exchange,
    inverse,
    order_by_slot,
    take_rows,
    weighted_bags,
)
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind


@dataclass(frozen=True)
class FlatRoute(Handle):
    """The flat dispatcher's route of one chunk; it says all that the way back needs too."""

    sent_MD: torch.Tensor
    weights_TK: torch.Tensor
    order_M: torch.Tensor
    """Which (token, expert), counted through, each row sent is of."""
    by_slot_N: torch.Tensor | None
    """Order that sorts the rows received by slot; None where they come so."""
    counts_S: Counts
    sent_R: Sequence[int]
    received_R: Sequence[int]
    total_rows: int
    """Rows of all ranks in a chunk on average: they agree on it."""
    buffers: str
    """Name of this chunk's buffers."""

    @property
    def traffic(self) -> PeerBytes:
        """Bytes of the rows."""
        row_bytes = self.sent_MD.shape[1] * self.sent_MD.element_size()
        return PeerBytes([n * row_bytes for n in self.sent_R], [n * row_bytes for n in self.received_R])


_Arrival = tuple[Sequence[int], Sequence[int], Counts, torch.Tensor | None]
"""A chunk's part of `FlatRoute`: sent_R, received_R, counts_S and by_slot_N."""


class FlatDispatcher:
    """One row per (token, expert), straight to the expert's rank.

    The counts per (rank, slot) travel first and tell the receiver everything: rows arrive sorted by source and
    slot, so no row carries a header. The weights stay at home and are applied there.
    """

    capabilities = Capabilities(DispatcherKind.FLAT, training=True)

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
        slot_TK = rank_TK if S == 1 else rank_TK * S + local_TK
        parts = chunk_slices(len(x_TD), chunks)
        counts_RX = torch.cat([counted(slot_TK[part].flatten(), R * S).view(R, S) for part in parts], dim=1)
        agreed = agree_on_counts(self._transport, counts_RX, slot_TK.numel)
        # Sorted and gathered while the counts travel.
        order_CM = [torch.argsort(slot_TK[part].flatten(), stable=True) for part in parts]
        sent_CMD = [
            take_rows(x_TD[part], order_M // experts_TK.shape[1], self._buffers, f"send {lane}.{c}")
            for c, (part, order_M) in enumerate(zip(parts, order_CM, strict=True))
        ]
        arriving_RX, total = agreed.wait()
        chunk_X = [slice(c * S, (c + 1) * S) for c in range(chunks)]
        arrivals = (
            self._from_here([len(order_M) for order_M in order_CM], arriving_RX, chunk_X)
            if R == 1
            else self._from_all(counts_RX, arriving_RX, chunk_X)
        )
        return [
            FlatRoute(
                sent_MD=sent_CMD[c],
                weights_TK=weights_TK[part],
                order_M=order_CM[c],
                total_rows=total // chunks,
                buffers=f"{lane}.{c}",
                by_slot_N=by_slot_N,
                counts_S=counts_S,
                sent_R=sent_R,
                received_R=received_R,
            )
            for c, (part, (sent_R, received_R, counts_S, by_slot_N)) in enumerate(
                zip(parts, arrivals, strict=True)
            )
        ]

    def _from_here(
        self, rows_C: Sequence[int], arriving_1X: torch.Tensor, chunk_X: Sequence[slice]
    ) -> Iterator[_Arrival]:
        """With one rank all rows stay, and none of the counts need be read back from a GPU."""
        for rows, of in zip(rows_C, chunk_X, strict=True):
            yield (rows,), (rows,), Counts(arriving_1X[0, of][: self._local_slots]), None

    def _from_all(
        self, counts_RX: torch.Tensor, arriving_RX: torch.Tensor, chunk_X: Sequence[slice]
    ) -> Iterator[_Arrival]:
        """The counts as numbers, read back at once: there are few, and summing them takes no kernels."""
        sending, arriving = torch.stack((counts_RX, arriving_RX)).tolist()
        arriving_X = [sum(n_R) for n_R in zip(*arriving, strict=True)]
        for of in chunk_X:
            here_RS, rows = arriving_RX[:, of], sum(arriving_X[of])
            counts_S = Counts(arriving_X[of][: self._local_slots], arriving_RS=here_RS)
            yield (
                tuple(sum(n_X[of]) for n_X in sending),
                tuple(sum(n_X[of]) for n_X in arriving),
                counts_S,
                None if self._widest == 1 else order_by_slot(here_RS, rows),
            )

    def send(self, route: FlatRoute) -> Pending[Received[FlatRoute]]:
        """See `Dispatcher.send`."""
        pending = self._exchange("dispatch", route.sent_MD, route.received_R, route.sent_R, route)
        order_N = route.by_slot_N
        return pending.then(
            lambda rows_ND: Received(rows_ND if order_N is None else rows_ND[order_N], route.counts_S, route)
        )

    def send_back(self, y_ND: torch.Tensor, handle: FlatRoute) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        if handle.by_slot_N is not None:
            y_ND = y_ND[inverse(handle.by_slot_N)]
        pending = self._exchange("combine", y_ND, handle.sent_R, handle.received_R, handle)
        # Here, because it is done while the rows travel.
        row_TK = inverse(handle.order_M).view_as(handle.weights_TK)
        return pending.then(lambda back_MD: weighted_sum(back_MD, row_TK, handle.weights_TK))

    def _exchange(
        self,
        name: str,
        sent_MD: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        route: FlatRoute,
    ) -> Pending[torch.Tensor]:
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
    return weighted_bags(row_TK, rows_MD, weights_TK)
