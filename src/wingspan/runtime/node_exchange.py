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
from wingspan.runtime.dispatch import Handle, Received, Traffic
from wingspan.runtime.transport import Transport


class NodeExchange(Protocol):
    """Brings rows to the slots that their choices name, and the weighted sums back. Collective in the group."""

    def dispatch(self, parts: Sequence[torch.Tensor], choices: Choices) -> tuple[Received, Any]:
        """Send each choice's row; the rows are `parts` (., D) one after another. Returns what came, and a handle."""

    def combine(self, y_ND: torch.Tensor, handle: Any) -> torch.Tensor:
        """The experts' outputs (rows as `Received` had them) back; returns the weighted sum per row (X, D)."""


@dataclass(frozen=True)
class RowHandle(Handle):
    """The memory of one dispatch."""

    choices: Choices
    place_P: torch.Tensor
    """Home: where each choice's row stands among those sent."""
    by_slot_N: torch.Tensor
    sent_R: list[int]
    received_R: list[int]
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows."""
        return Traffic(
            [n * self.row_bytes for n in self.sent_R], [n * self.row_bytes for n in self.received_R]
        )


class RowExchange:
    """`NodeExchange` over any transport: one row per choice."""

    def __init__(self, transport: Transport, local_slots_R: Sequence[int], buffers: Buffers) -> None:
        self._transport = transport
        self._local_slots = int(local_slots_R[transport.world.rank])
        self._widest = max(1, *local_slots_R)
        self._buffers = buffers

    def dispatch(self, parts: Sequence[torch.Tensor], choices: Choices) -> tuple[Received, RowHandle]:
        """See `NodeExchange.dispatch`."""
        R, S = self._transport.world.size, self._widest
        slot_P = choices.rank_P * S + choices.slot_P
        order_P = torch.argsort(slot_P, stable=True)
        counts_RS = torch.bincount(slot_P, minlength=R * S).view(R, S)
        arriving_RS = self._transport.exchange_counts(counts_RS)
        sent_R, received_R = counts_RS.sum(1).tolist(), arriving_RS.sum(1).tolist()
        rows_XD = torch.cat(list(parts))
        rows_ND = self._move("dispatch", rows_XD[choices.row_P[order_P]], received_R, sent_R)
        slot_N = torch.arange(S, device=rows_ND.device).repeat(R)
        slot_N = slot_N.repeat_interleave(arriving_RS.flatten(), output_size=len(rows_ND))
        by_slot_N = torch.argsort(slot_N, stable=True)
        place_P = _inverse(order_P)
        row_bytes = rows_XD.shape[1] * rows_XD.element_size()
        handle = RowHandle(choices, place_P, by_slot_N, sent_R, received_R, row_bytes)
        return Received(rows_ND[by_slot_N], arriving_RS.sum(0).tolist()[: self._local_slots]), handle

    def combine(self, y_ND: torch.Tensor, handle: RowHandle) -> torch.Tensor:
        """See `NodeExchange.combine`."""
        y_ND = y_ND[_inverse(handle.by_slot_N)]
        back_PD = self._move("combine", y_ND, handle.sent_R, handle.received_R)
        return handle.choices.weighted_sum(back_PD, handle.place_P)

    def _move(
        self, name: str, sent_ND: torch.Tensor, received_R: list[int], sent_R: list[int]
    ) -> torch.Tensor:
        shape = (sum(received_R), sent_ND.shape[1])
        received_ND = self._buffers.take(name, shape, sent_ND.dtype, sent_ND.device)
        self._transport.exchange_rows(received_ND, sent_ND.contiguous(), received_R, sent_R).wait()
        return received_ND


def _inverse(order_N: torch.Tensor) -> torch.Tensor:
    inverse_N = torch.empty_like(order_N)
    inverse_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    return inverse_N
