"""Rows to chosen slots of a small group by its transport, and weighted sums back: a hierarchy's inner level.

`shared.SharedExchange` does the same where the group shares memory.

Shapes: X rows of this rank, P choices, D hidden size, R ranks of the group, S the most slots of a rank,
N rows computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choices import Choices
from wingspan.runtime.dispatch.counts import Counts, counted
from wingspan.runtime.dispatch.dispatcher import (
    Handle,
    PeerBytes,
    Pending,
    Received,
    exchange,
    inverse,
    order_by_slot,
)
from wingspan.runtime.transport.transport import Transport


class NodeExchange(Protocol):
    """Brings rows to the slots that their choices name, and the weighted sums back. Collective in the group."""

    def route(self, parts: Sequence[torch.Tensor], choices: Choices, buffer: str) -> Any:
        """Agree on what each slot gets of the rows (., D) that one after another are `parts`."""

    def send(self, route: Any) -> Pending[Received[Any]]:
        """Start to send each choice's row."""

    def send_back(self, y_ND: torch.Tensor, handle: Any) -> Pending[torch.Tensor]:
        """Start to send the experts' outputs (rows as `Received` had them) back: the weighted sum per row (X, D)."""


@dataclass(frozen=True)
class RowRoute(Handle):
    """The route of one chunk; it says all that the way back needs too."""

    rows_PD: torch.Tensor
    """In the order sent."""
    choices: Choices
    place_P: torch.Tensor
    """Home: where each choice's row stands among those sent."""
    by_slot_N: torch.Tensor
    counts_S: Counts
    sent_R: Sequence[int]
    received_R: Sequence[int]
    buffer: str

    @property
    def traffic(self) -> PeerBytes:
        """Bytes of the rows."""
        row_bytes = self.rows_PD.shape[1] * self.rows_PD.element_size()
        return PeerBytes([n * row_bytes for n in self.sent_R], [n * row_bytes for n in self.received_R])


class RowExchange:
    """`NodeExchange` over any transport: one row per choice."""

    def __init__(self, transport: Transport, local_slots_R: Sequence[int], buffers: Buffers) -> None:
        self._transport = transport
        self._local_slots = int(local_slots_R[transport.world.rank])
        self._widest = max(1, *local_slots_R)
        self._buffers = buffers

    def route(self, parts: Sequence[torch.Tensor], choices: Choices, buffer: str) -> RowRoute:
        """See `NodeExchange.route`."""
        R, S = self._transport.world.size, self._widest
        slot_P = choices.rank_P * S + choices.slot_P
        order_P = torch.argsort(slot_P, stable=True)
        counts_RS = counted(slot_P, R * S).view(R, S)
        arriving_RS = self._transport.exchange_counts(counts_RS)
        sent_R, received_R = torch.stack((counts_RS, arriving_RS)).sum(2).tolist()
        return RowRoute(
            rows_PD=torch.cat(list(parts))[choices.row_P[order_P]],
            choices=choices,
            place_P=inverse(order_P),
            by_slot_N=order_by_slot(arriving_RS, sum(received_R)),
            counts_S=Counts(arriving_RS.sum(0)[: self._local_slots]),
            sent_R=tuple(sent_R),
            received_R=tuple(received_R),
            buffer=buffer,
        )

    def send(self, route: RowRoute) -> Pending[Received[RowRoute]]:
        """See `NodeExchange.send`."""
        pending = exchange(
            self._transport,
            self._buffers,
            f"inside {route.buffer}",
            route.rows_PD,
            route.received_R,
            route.sent_R,
        )
        return pending.then(lambda rows_ND: Received(rows_ND[route.by_slot_N], route.counts_S, route))

    def send_back(self, y_ND: torch.Tensor, handle: RowRoute) -> Pending[torch.Tensor]:
        """See `NodeExchange.send_back`."""
        pending = exchange(
            self._transport,
            self._buffers,
            f"inside back {handle.buffer}",
            y_ND[inverse(handle.by_slot_N)],
            handle.sent_R,
            handle.received_R,
        )
        return pending.then(lambda back_PD: handle.choices.weighted_sum(back_PD, handle.place_P))
