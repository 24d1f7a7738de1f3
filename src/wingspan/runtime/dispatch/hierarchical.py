"""One row per (token, node) over the network: for nodes whose inner links are much faster than those between them.

A token crosses to each node that holds some of its experts once, to the rank with its home's local index (its
rail), with the list of its choices there; that rank forwards it inside the node. On the way back the outputs are
weighted and summed inside the node, and one row per (token, node) comes home. Inference only.

Shapes: T tokens of this rank, K experts per token, D hidden size, G nodes, W ranks per node, M rows sent to other
nodes, A rows that arrive from them, P choices sent along, N rows computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.errors import RunError
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choices import Choices, choices_of_rows
from wingspan.runtime.dispatch.counts import counted
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
)
from wingspan.runtime.dispatch.node_exchange import NodeExchange, RowExchange
from wingspan.runtime.dispatch.shared import SharedExchange
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.shm import NodeTransport, SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind


@dataclass(frozen=True)
class Levels:
    """A group's two levels, as one rank sees them: its rail across the nodes, and its node."""

    world: World
    across: Transport
    inside: Transport


def make_levels(transport: Transport) -> Levels:
    """Collective: split a group into rails and nodes; made once, for all layers."""
    world = transport.world
    rail = world.rank % world.ranks_per_node
    if isinstance(transport, SharedMemoryTransport):
        return Levels(world, transport.outer.split(rail), transport.inside)
    return Levels(world, transport.split(rail), transport.split(world.node))


@dataclass(frozen=True)
class HierarchicalRoute:
    """The route of one chunk."""

    x_TD: torch.Tensor
    chosen: _All
    token_M: torch.Tensor
    packed_P2: torch.Tensor
    sent_G: Sequence[int]
    received_G: Sequence[int]
    choices_sent_G: Sequence[int]
    choices_received_G: Sequence[int]
    total_rows: int
    """Rows of all ranks of the rail in a chunk on average: they agree on it."""
    world: World
    buffer: str


@dataclass(frozen=True)
class HierarchicalHandle(Handle):
    """What is known of a chunk when the rows from other nodes are here, and have been forwarded."""

    route: HierarchicalRoute
    inside: Handle

    @property
    def traffic(self) -> PeerBytes:
        """Bytes of the rows, each level's; without the 8 bytes of each choice."""
        inner, route = self.inside.traffic, self.route
        return PeerBytes(
            self._over_ranks(route.sent_G, inner.sent_R), self._over_ranks(route.received_G, inner.received_R)
        )

    def _over_ranks(self, rows_G: Sequence[int], inside_W: Sequence[int]) -> list[int]:
        route, world, W = self.route, self.route.world, self.route.world.ranks_per_node
        row_bytes = route.x_TD.shape[1] * route.x_TD.element_size()
        bytes_R = [0] * world.size
        bytes_R[world.rank % W :: W] = [rows * row_bytes for rows in rows_G]
        for index, size in enumerate(inside_W):
            bytes_R[world.node * W + index] += size
        return bytes_R


class HierarchicalDispatcher:
    """See the file's head. Same results as `FlatDispatcher` up to the order of summation."""

    capabilities = Capabilities(DispatcherKind.HIERARCHICAL)

    def __init__(
        self, levels: Levels, slots: SlotMap, local_slots_R: Sequence[int], buffers: Buffers
    ) -> None:
        world = levels.world
        self._world = world
        self._across = levels.across
        self._slots = slots
        self._widest = max(1, *local_slots_R)
        self._buffers = buffers
        first = world.node * world.ranks_per_node
        here = local_slots_R[first : first + world.ranks_per_node]
        self._inside: NodeExchange = (
            SharedExchange(levels.inside, here)
            if isinstance(levels.inside, NodeTransport)
            else RowExchange(levels.inside, here, buffers)
        )

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[HierarchicalRoute]:
        """See `Dispatcher.route`: agrees on what crosses; inside the node that is settled when it has arrived."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError("the hierarchical dispatcher carries no gradient; train with the flat one")
        world = self._world
        rank_TK, slot_TK = self._slots(experts_TK)
        parts = chunk_slices(len(x_TD), chunks)
        all_C = [
            _All(rank_TK[part], slot_TK[part], weights_TK[part], world.ranks_per_node, self._widest)
            for part in parts
        ]
        rows_C = [chosen.rows_across(world) for chosen in all_C]
        packed_C = [chosen.packed_across(world) for chosen in all_C]
        counts_C = [
            torch.stack((rows[1], packed[1]), dim=1) for rows, packed in zip(rows_C, packed_C, strict=True)
        ]
        counts_GC2 = torch.cat(counts_C, dim=1)
        arriving_GC2, total = agree_on_counts(
            self._across, counts_GC2, lambda: int(counts_GC2[:, ::2].sum())
        ).wait()
        sending_GX, arriving_GX = torch.stack((counts_GC2, arriving_GC2)).tolist()
        return [
            HierarchicalRoute(
                x_TD=x_TD[part],
                chosen=all_C[c],
                token_M=rows_C[c][0],
                packed_P2=packed_C[c][0],
                sent_G=tuple(n_X[2 * c] for n_X in sending_GX),
                received_G=tuple(n_X[2 * c] for n_X in arriving_GX),
                choices_sent_G=tuple(n_X[2 * c + 1] for n_X in sending_GX),
                choices_received_G=tuple(n_X[2 * c + 1] for n_X in arriving_GX),
                total_rows=total // chunks,
                world=world,
                buffer=f"{lane}.{c}",
            )
            for c, part in enumerate(parts)
        ]

    def send(self, route: HierarchicalRoute) -> Pending[Received[HierarchicalHandle]]:
        """See `Dispatcher.send`: rows cross the network at once, and are forwarded when they are waited for."""
        rows_MD = take_rows(route.x_TD, route.token_M, self._buffers, f"send {route.buffer}")
        packed = self._cross(
            "choices", route.packed_P2, route.choices_received_G, route.choices_sent_G, route
        )
        rows = self._cross("across", rows_MD, route.received_G, route.sent_G, route)

        def forward(come: tuple[torch.Tensor, torch.Tensor]) -> Received[HierarchicalHandle]:
            rows_AD, packed_A2 = come
            choices = route.chosen.here(self._world, packed_A2, len(rows_AD))
            inside = self._inside.route([route.x_TD, rows_AD], choices, route.buffer)
            received = self._inside.send(inside).wait()
            return Received(received.rows_ND, received.counts_S, HierarchicalHandle(route, received.handle))

        return rows.together_with(packed).then(forward)

    def send_back(self, y_ND: torch.Tensor, handle: HierarchicalHandle) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`: sums are made inside the node first, and cross the network then."""
        route = handle.route
        sums_XD = self._inside.send_back(y_ND, handle.inside).wait()
        own_TD, away_AD = sums_XD[: len(route.x_TD)], sums_XD[len(route.x_TD) :]
        pending = self._cross("back", away_AD, route.sent_G, route.received_G, route)
        return pending.then(lambda back_MD: own_TD.index_add_(0, route.token_M, back_MD))

    def _cross(
        self,
        name: str,
        sent: torch.Tensor,
        received_G: Sequence[int],
        sent_G: Sequence[int],
        route: HierarchicalRoute,
    ) -> Pending[torch.Tensor]:
        return exchange(
            self._across,
            self._buffers,
            f"{name} {route.buffer}",
            sent,
            received_G,
            sent_G,
            total_rows=route.total_rows,
        )


class _All:
    """All choices of this rank's tokens, told apart by whether they lie on its node."""

    def __init__(
        self,
        rank_TK: torch.Tensor,
        slot_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        ranks_per_node: int,
        widest: int,
    ) -> None:
        self._node_TK = rank_TK // ranks_per_node
        self._place_TK = rank_TK % ranks_per_node * widest + slot_TK
        self._weights_TK = weights_TK
        self._widest = widest

    def rows_across(self, world: World) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that each other node needs, once each, node by node; and how many each gets (G)."""
        T, K = self._node_TK.shape
        needed_GT = torch.zeros(
            (world.size // world.ranks_per_node, T), dtype=torch.bool, device=self._node_TK.device
        )
        token_P = torch.arange(T, device=needed_GT.device).repeat_interleave(K)
        needed_GT[self._node_TK.flatten(), token_P] = True
        needed_GT[world.node] = False
        return needed_GT.nonzero()[:, 1], needed_GT.sum(1)

    def packed_across(self, world: World) -> tuple[torch.Tensor, torch.Tensor]:
        """The choices that go along, in the order of their rows, 8 bytes each; and how many each node gets (G).

        First word: place in the node, and in the lowest bit whether it is its row's last; second: the weight.
        """
        T, K = self._node_TK.shape
        node_P, place_P = self._node_TK.flatten(), self._place_TK.flatten()
        away_P = (node_P != world.node).nonzero().flatten()
        row_P = node_P[away_P] * T + away_P // K
        order_P = torch.argsort(row_P, stable=True)
        row_P, away_P = row_P[order_P], away_P[order_P]
        last_P = torch.ones_like(row_P)
        last_P[:-1] = row_P[1:] != row_P[:-1]
        word_P = (place_P[away_P] * 2 + last_P).to(torch.int32)
        weight_P = self._weights_TK.flatten()[away_P].float().view(torch.int32)
        counts_G = counted(node_P[away_P], world.size // world.ranks_per_node)
        return torch.stack((word_P, weight_P), dim=1), counts_G

    def here(self, world: World, packed_A2: torch.Tensor, arrived: int) -> Choices:
        """The own tokens' choices on this node, then those of the rows that arrived."""
        T, K = self._node_TK.shape
        own_P = (self._node_TK.flatten() == world.node).nonzero().flatten()
        word_A = packed_A2[:, 0].long()
        last_A = word_A & 1
        row_A = T + last_A.cumsum(0) - last_A
        place_P = torch.cat((self._place_TK.flatten()[own_P], word_A >> 1))
        weight_A = packed_A2[:, 1].contiguous().view(torch.float32)
        return choices_of_rows(
            T + arrived,
            torch.cat((own_P // K, row_A)),
            place_P // self._widest,
            place_P % self._widest,
            torch.cat((self._weights_TK.flatten()[own_P].float(), weight_A)),
        )
