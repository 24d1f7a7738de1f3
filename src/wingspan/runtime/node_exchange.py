"""Rows to chosen slots of a small group by its transport, and weighted sums back: a hierarchy's inner level.

`dispatch_shared.SharedExchange` does the same where the group shares memory.

Shapes: X rows of this rank, P choices, D hidden size, R ranks of the group, S the most slots of a rank,
N rows computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from wingspan.runtime.buffers import Buffers
from wingspan.runtime.choices import Choices
from wingspan.runtime.dispatch import Coming, Received, Traffic, exchange
from wingspan.runtime.transport import Transport


class NodeExchange(Protocol):
    """Brings rows to the slots that their choices name, and the weighted sums back. Collective in the group."""

    def route(self, parts: Sequence[torch.Tensor], choices: Choices, buffers: str) -> Any:
        """Where rows go.

        Args:
            parts: tensors (., D) that one after another are the rows.
            choices: of these rows, for ranks of the group.
            buffers: name of this chunk's buffers.
        """

    def send(self, route: Any) -> Coming[Received]:
        """Start to send each choice's row; what comes is for this rank's experts."""

    def send_back(self, y_ND: torch.Tensor, route: Any) -> Coming[torch.Tensor]:
        """Start to send the outputs back (rows as `Received` had them): the weighted sum per row (X, D)."""


@dataclass(frozen=True)
class RowRoute:
    """The route of one chunk."""

    sent_PD: torch.Tensor
    choices: Choices
    place_P: torch.Tensor
    """Where each choice's row stands among those sent."""
    by_slot_N: torch.Tensor
    counts_S: list[int]
    sent_R: list[int]
    received_R: list[int]
    buffers: str

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows."""
        row_bytes = self.sent_PD.shape[1] * self.sent_PD.element_size()
        return Traffic([n * row_bytes for n in self.sent_R], [n * row_bytes for n in self.received_R])


class RowExchange:
    """`NodeExchange` over any transport: one row per choice."""

    def __init__(self, transport: Transport, local_slots_R: Sequence[int], buffers: Buffers) -> None:
        self._transport = transport
        self._local_slots = int(local_slots_R[transport.world.rank])
        self._widest = max(1, *local_slots_R)
        self._buffers = buffers

    def route(self, parts: Sequence[torch.Tensor], choices: Choices, buffers: str) -> RowRoute:
        """See `NodeExchange.route`; exchanges the counts."""
        R, S = self._transport.world.size, self._widest
        slot_P = choices.rank_P * S + choices.slot_P
        order_P = torch.argsort(slot_P, stable=True)
        counts_RS = torch.bincount(slot_P, minlength=R * S).view(R, S)
        arriving_RS = self._transport.exchange_counts(counts_RS)
        slot_N = torch.arange(S, device=slot_P.device).repeat(R).repeat_interleave(arriving_RS.flatten())
        return RowRoute(
            sent_PD=torch.cat(list(parts))[choices.row_P[order_P]],
            choices=choices,
            place_P=_inverse(order_P),
            by_slot_N=torch.argsort(slot_N, stable=True),
            counts_S=arriving_RS.sum(0).tolist()[: self._local_slots],
            sent_R=counts_RS.sum(1).tolist(),
            received_R=arriving_RS.sum(1).tolist(),
            buffers=buffers,
        )

    def send(self, route: RowRoute) -> Coming[Received]:
        """See `NodeExchange.send`."""
        coming = self._exchange(f"dispatch {route.buffers}", route.sent_PD, route.received_R, route.sent_R)
        return coming.then(lambda rows_ND: Received(rows_ND[route.by_slot_N], route.counts_S))

    def send_back(self, y_ND: torch.Tensor, route: RowRoute) -> Coming[torch.Tensor]:
        """See `NodeExchange.send_back`."""
        sent_ND = y_ND[_inverse(route.by_slot_N)]
        coming = self._exchange(f"combine {route.buffers}", sent_ND, route.sent_R, route.received_R)
        return coming.then(lambda back_PD: route.choices.weighted_sum(back_PD, route.place_P))

    def _exchange(
        self, name: str, sent_ND: torch.Tensor, received_R: list[int], sent_R: list[int]
    ) -> Coming[torch.Tensor]:
        return exchange(self._transport, self._buffers, name, sent_ND, received_R, sent_R)


def _inverse(order_N: torch.Tensor) -> torch.Tensor:
    inverse_N = torch.empty_like(order_N)
    inverse_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    return inverse_N
