"""One row per (token, node) over the network: for nodes whose inner links are much faster than those between them.

A token crosses to each node that holds some of its experts once, to the rank with its home's local index (its
rail), with the list of its choices there; that rank forwards it inside the node. On the way back the outputs are
weighted and summed inside the node, and one row per (token, node) comes home. Inference only.

Shapes: T tokens of a chunk, K experts per token, D hidden size, C chunks, G nodes, L ranks per node, M rows sent to
other nodes, A rows that arrive from them, P choices sent along, N rows computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from wingspan.errors import RunError
from wingspan.runtime.buffers import Buffers
from wingspan.runtime.choices import Choices
from wingspan.runtime.dispatch import Coming, Received, Traffic, chunk_slices, exchange, take_rows
from wingspan.runtime.dispatch_shared import SharedExchange
from wingspan.runtime.node_choices import NodeChoices, with_arrived
from wingspan.runtime.node_exchange import NodeExchange, RowExchange
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport import Transport
from wingspan.runtime.transport_shm import NodeTransport, SharedMemoryTransport
from wingspan.runtime.world import World


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
    token_M: torch.Tensor
    """Token of each row sent to another node, node by node."""
    packed_P2: torch.Tensor
    """The choices that go along."""
    own: Choices
    """The tokens' choices on this node."""
    sent_G2: torch.Tensor
    """Rows and choices to each node."""
    received_G2: torch.Tensor
    world: World
    buffers: str
    """Name of this chunk's buffers."""
    inner: list[Any] = field(default_factory=list)
    """The route inside the node, when the rows from other nodes are here."""

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows, each level's; without the 8 bytes of each choice."""
        L = self.world.ranks_per_node
        inside = self.inner[0].traffic if self.inner else Traffic([0] * L, [0] * L)
        return Traffic(
            self._over_ranks(self.sent_G2, inside.sent_R),
            self._over_ranks(self.received_G2, inside.received_R),
        )

    def _over_ranks(self, count_G2: torch.Tensor, inside_L: list[int]) -> list[int]:
        world, L = self.world, self.world.ranks_per_node
        row_bytes = self.x_TD.shape[1] * self.x_TD.element_size()
        bytes_R = [0] * world.size
        bytes_R[world.rank % L :: L] = (count_G2[:, 0] * row_bytes).tolist()
        for index, size in enumerate(inside_L):
            bytes_R[world.node * L + index] += size
        return bytes_R


class HierarchicalDispatcher:
    """See the file's head. Same results as `FlatDispatcher` up to the order of summation."""

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
            SharedExchange(levels.inside, here, buffers)
            if isinstance(levels.inside, NodeTransport)
            else RowExchange(levels.inside, here, buffers)
        )

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[HierarchicalRoute]:
        """See `Dispatcher.route`; raises `RunError` where a gradient is wanted."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError("the hierarchical dispatcher carries no gradient; train with --dispatch flat")
        rank_TK, slot_TK = self._slots(experts_TK)
        parts = chunk_slices(len(x_TD), chunks)
        chosen = [
            NodeChoices(rank_TK[part], slot_TK[part], weights_TK[part], self._world, self._widest)
            for part in parts
        ]
        token_C, packed_C = [c.rows_across() for c in chosen], [c.packed_across() for c in chosen]
        sent_CG2 = torch.stack(
            [torch.stack((rows[1], packed[1]), dim=1) for rows, packed in zip(token_C, packed_C, strict=True)]
        )
        received_GC2 = self._across.exchange_counts(sent_CG2.transpose(0, 1).flatten(1))
        received_CG2 = received_GC2.view(-1, chunks, 2).transpose(0, 1)
        return [
            HierarchicalRoute(
                x_TD=x_TD[part],
                token_M=token_C[c][0],
                packed_P2=packed_C[c][0],
                own=chosen[c].own(),
                sent_G2=sent_CG2[c],
                received_G2=received_CG2[c],
                world=self._world,
                buffers=f"{lane}.{c}",
            )
            for c, part in enumerate(parts)
        ]

    def send(self, route: HierarchicalRoute) -> Coming[Received]:
        """See `Dispatcher.send`. The network's part starts here; the node's follows in `wait`."""
        rows_MD = take_rows(route.x_TD, route.token_M, self._buffers, f"send {route.buffers}")
        rows = self._cross(f"across {route.buffers}", rows_MD, route, 0, back=False)
        packed = self._cross(f"choices {route.buffers}", route.packed_P2, route, 1, back=False)

        def forward(arrived: tuple[torch.Tensor, torch.Tensor]) -> Received:
            rows_AD, packed_A2 = arrived
            choices = with_arrived(route.own, packed_A2, len(rows_AD), self._widest)
            inner = self._inside.route([route.x_TD, rows_AD], choices, f"inside {route.buffers}")
            route.inner.append(inner)
            return self._inside.send(inner).wait()

        return rows.beside(packed).then(forward)

    def send_back(self, y_ND: torch.Tensor, route: HierarchicalRoute) -> Coming[torch.Tensor]:
        """See `Dispatcher.send_back`. Sums inside the node, then starts the network's part."""
        sums_XD = self._inside.send_back(y_ND, route.inner[0]).wait()
        T = len(route.x_TD)
        coming = self._cross(f"back {route.buffers}", sums_XD[T:], route, 0, back=True)
        return coming.then(lambda back_MD: sums_XD[:T].index_add_(0, route.token_M, back_MD))

    def _cross(
        self, name: str, sent: torch.Tensor, route: HierarchicalRoute, column: int, *, back: bool
    ) -> Coming[torch.Tensor]:
        """Over the rail: rows (column 0) or choices (column 1), out or back."""
        sent_G, received_G = route.sent_G2[:, column].tolist(), route.received_G2[:, column].tolist()
        if back:
            sent_G, received_G = received_G, sent_G
        return exchange(self._across, self._buffers, name, sent, received_G, sent_G)
