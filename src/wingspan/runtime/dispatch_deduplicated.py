"""One row per (token, destination rank): for ranks that hold several experts, of which a token often picks two.

The receiver gets with each row the slots and weights that the token chose there, sums the weighted outputs, and
returns one row. With several experts per rank this saves rows both ways.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, S local slots, M rows sent,
N rows received, C the most choices a row can carry, P (row, slot) pairs computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.buffers import Buffers
from wingspan.runtime.dispatch import Received, Traffic, exchange, take_rows
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport import Transport


@dataclass(frozen=True)
class DeduplicatedHandle:
    """The memory of one dispatch: which rows are whose, here and at home."""

    bag_M: torch.Tensor
    """Home: the rows of each token one after another."""
    offsets_T: torch.Tensor
    pair_NC: torch.Tensor
    """Away: each received row's pairs among the sorted ones; its unused places point at any."""
    weights_NC: torch.Tensor
    """Away: their weights; 0 in unused places."""
    sent_R: list[int]
    received_R: list[int]
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows, without their few bytes of slots and weights."""
        return Traffic(
            [n * self.row_bytes for n in self.sent_R], [n * self.row_bytes for n in self.received_R]
        )


class DeduplicatingDispatcher:
    """See the file's head. Same results as `FlatDispatcher` up to the order of summation."""

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
    ) -> tuple[Received, DeduplicatedHandle]:
        """See `Dispatcher.dispatch`."""
        T, K = experts_TK.shape
        R = self._transport.world.size
        rank_TK, local_TK = self._slots(experts_TK)
        wanted_RT = torch.zeros((R, T), dtype=torch.bool, device=x_TD.device)
        wanted_RT[rank_TK.flatten(), torch.arange(T, device=x_TD.device).repeat_interleave(K)] = True
        token_M = wanted_RT.nonzero()[:, 1]
        sent_R1 = wanted_RT.sum(1, keepdim=True)
        received_R = self._transport.exchange_counts(sent_R1).flatten().tolist()
        sent_R = sent_R1.flatten().tolist()
        slots_MC, weights_MC = self._choices(token_M, sent_R1, rank_TK, local_TK, weights_TK)
        slots_NC = exchange(self._transport, self._buffers, "slots", slots_MC, received_R, sent_R)
        weights_NC = exchange(self._transport, self._buffers, "weights", weights_MC, received_R, sent_R)
        rows_ND = exchange(
            self._transport,
            self._buffers,
            "dispatch",
            take_rows(x_TD, token_M, self._buffers),
            received_R,
            sent_R,
        )
        received, pair_NC = self._sort_by_slot(rows_ND, slots_NC)
        by_token_M = torch.argsort(token_M, stable=True)
        offsets_T = wanted_RT.sum(0).cumsum(0) - wanted_RT.sum(0)
        row_bytes = x_TD.shape[1] * x_TD.element_size()
        handle = DeduplicatedHandle(by_token_M, offsets_T, pair_NC, weights_NC, sent_R, received_R, row_bytes)
        return received, handle

    def combine(self, y_ND: torch.Tensor, handle: DeduplicatedHandle) -> torch.Tensor:
        """See `Dispatcher.combine`; `y_ND` has one row per pair."""
        summed_ND = _bag(y_ND, handle.pair_NC, handle.weights_NC.to(y_ND.dtype))
        back_MD = exchange(
            self._transport, self._buffers, "combine", summed_ND, handle.sent_R, handle.received_R
        )
        if not len(handle.offsets_T):
            return back_MD.new_zeros((0, back_MD.shape[1])) + back_MD.sum() * 0
        return torch.nn.functional.embedding_bag(handle.bag_M, back_MD, handle.offsets_T, mode="sum")

    def _choices(
        self,
        token_M: torch.Tensor,
        sent_R1: torch.Tensor,
        rank_TK: torch.Tensor,
        local_TK: torch.Tensor,
        weights_TK: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Per row sent its slots at the destination (-1: none) and their weights, in C = min(K, S) places."""
        rank_M = torch.arange(len(sent_R1), device=token_M.device).repeat_interleave(sent_R1.flatten())
        here_MK = rank_TK[token_M] == rank_M[:, None]
        places = min(rank_TK.shape[1], self._widest)
        # Choices for this destination first; a token cannot have more of them than C.
        first_MC = here_MK.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :places]
        chosen_MC = here_MK.gather(1, first_MC)
        slots_MC = torch.where(chosen_MC, local_TK[token_M].gather(1, first_MC), -1).to(torch.int32)
        weights_MC = weights_TK[token_M].gather(1, first_MC) * chosen_MC
        return slots_MC, weights_MC.float()

    def _sort_by_slot(self, rows_ND: torch.Tensor, slots_NC: torch.Tensor) -> tuple[Received, torch.Tensor]:
        """The rows once per (row, slot), sorted by slot, and where each row's pairs stand among them."""
        C = slots_NC.shape[1]
        flat = slots_NC.flatten().long()
        held = (flat >= 0).nonzero().flatten()
        order_P = held[torch.argsort(flat[held], stable=True)]
        counts_S = torch.bincount(flat[held], minlength=self._local_slots).tolist()
        pair_NC = torch.zeros_like(flat)
        pair_NC[order_P] = torch.arange(len(order_P), device=flat.device)
        return Received(rows_ND[order_P // C], counts_S), pair_NC.view(-1, C)


def _bag(y_PD: torch.Tensor, pair_NC: torch.Tensor, weights_NC: torch.Tensor) -> torch.Tensor:
    if not len(pair_NC):
        # Keeps both empty inputs in the graph: backward sends either's gradient home, on every rank alike.
        return y_PD.new_zeros((0, y_PD.shape[1])) + (y_PD.sum() + weights_NC.sum()) * 0
    return torch.nn.functional.embedding_bag(pair_NC, y_PD, mode="sum", per_sample_weights=weights_NC)
