"""One row per (token, destination rank): for ranks that hold several experts, of which a token often picks two.

The receiver gets with each row the slots and weights that the token chose there, sums the weighted outputs, and
returns one row. With several experts per rank this saves rows both ways.

Shapes: T tokens of a chunk, K experts per token, D hidden size, R ranks, S local slots, M rows sent,
N rows received, C the most choices a row can carry, P (row, slot) pairs computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.dispatch.dispatcher import (
    Capabilities,
    Handle,
    PeerBytes,
    Pending,
    Received,
    agree_on_counts,
    chunk_slices,
    exchange,
    take_rows,
    weighted_bags,
)
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind


@dataclass(frozen=True)
class DeduplicatedRoute:
    """The route of one chunk."""

    x_TD: torch.Tensor
    token_M: torch.Tensor
    """Token of each row sent, in the order sent: by destination."""
    slots_MC: torch.Tensor
    weights_MC: torch.Tensor
    bag_M: torch.Tensor
    """The rows of each token one after another."""
    offsets_T: torch.Tensor
    """Where each token's rows begin in `bag_M`."""
    sent_R: Sequence[int]
    received_R: Sequence[int]
    total_rows: int
    """Rows of all ranks in a chunk on average: they agree on it."""
    buffers: str
    """Name of this chunk's buffers."""


@dataclass(frozen=True)
class DeduplicatedHandle(Handle):
    """What the rank of the experts knows of the rows it received."""

    route: DeduplicatedRoute
    pair_NC: torch.Tensor
    """Each row's pairs among those sorted by slot; its unused places point at any."""
    weights_NC: torch.Tensor
    """Their weights; 0 in unused places."""

    @property
    def traffic(self) -> PeerBytes:
        """Bytes of the rows, without their few bytes of slots and weights."""
        route = self.route
        row_bytes = route.x_TD.shape[1] * route.x_TD.element_size()
        return PeerBytes([n * row_bytes for n in route.sent_R], [n * row_bytes for n in route.received_R])


class DeduplicatingDispatcher:
    """See the file's head. Same results as `FlatDispatcher` up to the order of summation."""

    capabilities = Capabilities(DispatcherKind.DEDUPLICATED, training=True)

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
    ) -> list[DeduplicatedRoute]:
        """See `Dispatcher.route`."""
        T, K = experts_TK.shape
        rank_TK, local_TK = self._slots(experts_TK)
        wanted_RT = torch.zeros((self._transport.world.size, T), dtype=torch.bool, device=x_TD.device)
        wanted_RT[rank_TK.flatten(), torch.arange(T, device=x_TD.device).repeat_interleave(K)] = True
        parts = chunk_slices(T, chunks)
        sent_RC = torch.stack([wanted_RT[:, part].sum(1) for part in parts], dim=1)
        received_RC, total = agree_on_counts(self._transport, sent_RC, int(sent_RC.sum())).wait()
        return [
            self._route_chunk(
                x_TD[part],
                wanted_RT[:, part],
                (rank_TK[part], local_TK[part], weights_TK[part]),
                tuple(received_RC[:, c].tolist()),
                total // chunks,
                f"{lane}.{c}",
            )
            for c, part in enumerate(parts)
        ]

    def _route_chunk(
        self,
        x_TD: torch.Tensor,
        wanted_RT: torch.Tensor,
        choices: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        received_R: Sequence[int],
        total_rows: int,
        buffers: str,
    ) -> DeduplicatedRoute:
        rank_M, token_M = wanted_RT.nonzero().unbind(1)
        slots_MC, weights_MC = self._choices(rank_M, token_M, *choices)
        rows_T = wanted_RT.sum(0)
        return DeduplicatedRoute(
            x_TD=x_TD,
            token_M=token_M,
            slots_MC=slots_MC,
            weights_MC=weights_MC,
            bag_M=torch.argsort(token_M, stable=True),
            offsets_T=rows_T.cumsum(0) - rows_T,
            sent_R=tuple(wanted_RT.sum(1).tolist()),
            received_R=received_R,
            total_rows=total_rows,
            buffers=buffers,
        )

    def send(self, route: DeduplicatedRoute) -> Pending[Received[DeduplicatedHandle]]:
        """See `Dispatcher.send`."""
        rows_MD = take_rows(route.x_TD, route.token_M, self._buffers, f"send {route.buffers}")
        slots, weights, rows = (
            self._exchange(name, sent, route.received_R, route.sent_R, route)
            for name, sent in (
                ("slots", route.slots_MC),
                ("weights", route.weights_MC),
                ("dispatch", rows_MD),
            )
        )

        def receive(
            come: tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor],
        ) -> Received[DeduplicatedHandle]:
            (slots_NC, weights_NC), rows_ND = come
            rows_PD, counts_S, pair_NC = self._sort_by_slot(rows_ND, slots_NC)
            return Received(rows_PD, counts_S, DeduplicatedHandle(route, pair_NC, weights_NC))

        return slots.together_with(weights).together_with(rows).then(receive)

    def send_back(self, y_PD: torch.Tensor, handle: DeduplicatedHandle) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`; `y_PD` has one row per pair."""
        route = handle.route
        summed_ND = _bag(y_PD, handle.pair_NC, handle.weights_NC)
        pending = self._exchange("combine", summed_ND, route.sent_R, route.received_R, route)
        return pending.then(lambda back_MD: _sum_per_token(back_MD, route))

    def _exchange(
        self,
        name: str,
        sent_MX: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        route: DeduplicatedRoute,
    ) -> Pending[torch.Tensor]:
        return exchange(
            self._transport,
            self._buffers,
            f"{name} {route.buffers}",
            sent_MX,
            received_R,
            sent_R,
            total_rows=route.total_rows,
        )

    def _choices(
        self,
        rank_M: torch.Tensor,
        token_M: torch.Tensor,
        rank_TK: torch.Tensor,
        local_TK: torch.Tensor,
        weights_TK: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Per row sent its slots at the destination (-1: none) and their weights, in C = min(K, S) places."""
        here_MK = rank_TK[token_M] == rank_M[:, None]
        places = min(rank_TK.shape[1], self._widest)
        # Choices for this destination first; a token cannot have more of them than C.
        first_MC = here_MK.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :places]
        chosen_MC = here_MK.gather(1, first_MC)
        slots_MC = torch.where(chosen_MC, local_TK[token_M].gather(1, first_MC), -1).to(torch.int32)
        weights_MC = weights_TK[token_M].gather(1, first_MC) * chosen_MC
        return slots_MC, weights_MC.float()

    def _sort_by_slot(
        self, rows_ND: torch.Tensor, slots_NC: torch.Tensor
    ) -> tuple[torch.Tensor, Counts, torch.Tensor]:
        """The rows once per (row, slot), sorted by slot, how many each slot has, and where each row's pairs stand."""
        C = slots_NC.shape[1]
        flat = slots_NC.flatten().long()
        held = (flat >= 0).nonzero().flatten()
        order_P = held[torch.argsort(flat[held], stable=True)]
        counts_S = torch.bincount(flat[held], minlength=self._local_slots)
        pair_NC = torch.zeros_like(flat)
        pair_NC[order_P] = torch.arange(len(order_P), device=flat.device)
        return rows_ND[order_P // C], Counts(counts_S), pair_NC.view(-1, C)


def _sum_per_token(back_MD: torch.Tensor, route: DeduplicatedRoute) -> torch.Tensor:
    if not len(route.offsets_T):
        return back_MD.new_zeros((0, back_MD.shape[1])) + back_MD.sum() * 0
    return torch.nn.functional.embedding_bag(route.bag_M, back_MD, route.offsets_T, mode="sum")


def _bag(y_PD: torch.Tensor, pair_NC: torch.Tensor, weights_NC: torch.Tensor) -> torch.Tensor:
    if not len(pair_NC):
        # Keeps both empty inputs in the graph: backward sends either's gradient home, on every rank alike.
        return y_PD.new_zeros((0, y_PD.shape[1])) + (y_PD.sum() + weights_NC.sum()) * 0
    return weighted_bags(pair_NC, y_PD, weights_NC)
