"""One row per (token, destination rank): for ranks that hold several experts, of which a token often picks two.

The receiver gets with each row the slots and weights that the token chose there, sums the weighted outputs, and
returns one row. With several experts per rank this saves rows both ways.

Shapes: T tokens of a chunk, K experts per token, D hidden size, R ranks, S local slots, M rows sent,
N rows received, C the most choices a row can carry, P (row, slot) pairs computed here, X = 1 + S (of the rank with the
most) numbers that a rank is told beforehand: rows, and (row, slot) pairs of each slot.
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
    counts_S: Counts
    """Pairs of each slot here."""
    pairs: int
    """All of them."""
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


_Numbers = tuple[Sequence[int], Sequence[int], Counts, int]
"""A chunk's part of `DeduplicatedRoute`: sent_R, received_R, counts_S and pairs."""


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
        R, S = self._transport.world.size, self._widest
        counts_RCX = torch.stack(
            [
                torch.cat(
                    (
                        wanted_RT[:, part].sum(1, keepdim=True),
                        counted((rank_TK[part] * S + local_TK[part]).flatten(), R * S).view(R, S),
                    ),
                    dim=1,
                )
                for part in parts
            ],
            dim=1,
        )
        agreed = agree_on_counts(
            self._transport, counts_RCX.flatten(1), lambda: int(counts_RCX[:, :, 0].sum())
        )
        arriving_RCX, total = agreed.wait()
        arriving_RCX = arriving_RCX.unflatten(1, counts_RCX.shape[1:])
        lengths = [part.stop - part.start for part in parts]
        numbers = (
            self._from_here(lengths, K, arriving_RCX) if R == 1 else self._from_all(counts_RCX, arriving_RCX)
        )
        return [
            self._route_chunk(
                x_TD[part],
                wanted_RT[:, part],
                (rank_TK[part], local_TK[part], weights_TK[part]),
                of_chunk,
                total // chunks,
                f"{lane}.{c}",
            )
            for c, (part, of_chunk) in enumerate(zip(parts, numbers, strict=True))
        ]

    def _from_here(self, lengths: Sequence[int], K: int, arriving_1CX: torch.Tensor) -> Iterator[_Numbers]:
        """With one rank every token is a row, and none of the counts need be read back from a GPU."""
        for c, T in enumerate(lengths):
            yield (T,), (T,), Counts(arriving_1CX[0, c, 1 : 1 + self._local_slots]), T * K

    def _from_all(self, counts_RCX: torch.Tensor, arriving_RCX: torch.Tensor) -> Iterator[_Numbers]:
        """The counts as numbers, read back at once."""
        sending, arriving = torch.stack((counts_RCX, arriving_RCX)).tolist()
        for c in range(counts_RCX.shape[1]):
            pairs_S = [sum(n_R) for n_R in zip(*(n_CX[c][1:] for n_CX in arriving), strict=True)]
            counts_S = Counts(pairs_S[: self._local_slots], arriving_RS=arriving_RCX[:, c, 1:])
            yield (
                tuple(n_CX[c][0] for n_CX in sending),
                tuple(n_CX[c][0] for n_CX in arriving),
                counts_S,
                sum(pairs_S),
            )

    def _route_chunk(
        self,
        x_TD: torch.Tensor,
        wanted_RT: torch.Tensor,
        choices: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        numbers: _Numbers,
        total_rows: int,
        buffers: str,
    ) -> DeduplicatedRoute:
        sent_R, received_R, counts_S, pairs = numbers
        rank_M, token_M = torch.nonzero_static(wanted_RT, size=sum(sent_R)).unbind(1)
        slots_MC, weights_MC = self._choices(rank_M, token_M, *choices)
        rows_T = wanted_RT.sum(0)
        return DeduplicatedRoute(
            x_TD=x_TD,
            token_M=token_M,
            slots_MC=slots_MC,
            weights_MC=weights_MC,
            bag_M=torch.argsort(token_M, stable=True),
            offsets_T=rows_T.cumsum(0) - rows_T,
            sent_R=sent_R,
            received_R=received_R,
            counts_S=counts_S,
            pairs=pairs,
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
            order_P, pair_NC = self._sort_by_slot(slots_NC, route.pairs)
            rows_PD = rows_ND[order_P // slots_NC.shape[1]]
            return Received(rows_PD, route.counts_S, DeduplicatedHandle(route, pair_NC, weights_NC))

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

    def _sort_by_slot(self, slots_NC: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The places of (N, C) that hold a slot, sorted by it (P); and where each place's pair is among them."""
        flat = slots_NC.flatten().long()
        order_P = torch.argsort(torch.where(flat < 0, self._widest, flat), stable=True)[:pairs]
        pair_NC = torch.zeros_like(flat)
        pair_NC[order_P] = torch.arange(pairs, device=flat.device)
        return order_P, pair_NC.view(slots_NC.shape)


def _sum_per_token(back_MD: torch.Tensor, route: DeduplicatedRoute) -> torch.Tensor:
    if not len(route.offsets_T):
        return back_MD.new_zeros((0, back_MD.shape[1])) + back_MD.sum() * 0
    return torch.nn.functional.embedding_bag(route.bag_M, back_MD, route.offsets_T, mode="sum")


def _bag(y_PD: torch.Tensor, pair_NC: torch.Tensor, weights_NC: torch.Tensor) -> torch.Tensor:
    if not len(pair_NC):
        # Keeps both empty inputs in the graph: backward sends either's gradient home, on every rank alike.
        return y_PD.new_zeros((0, y_PD.shape[1])) + (y_PD.sum() + weights_NC.sum()) * 0
    return weighted_bags(pair_NC, y_PD, weights_NC)
