"""One row per (token, node) over the network: for nodes whose inner links are much faster than those between them.

A token crosses to each node that holds some of its experts once, to the rank with its home's local index (its
rail), with the list of its choices there; that rank forwards it inside the node. On the way back the outputs are
weighted and summed inside the node, and one row per (token, node) comes home. Inference only.

Shapes: T tokens of this rank, K experts per token, D hidden size, G nodes, L ranks per node, M rows sent to other
nodes, A rows that arrive from them, P choices sent along, N rows computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wingspan.errors import RunError
from wingspan.runtime.buffers import Buffers
from wingspan.runtime.choices import Choices
from wingspan.runtime.dispatch import Received, Traffic, take_rows
from wingspan.runtime.dispatch_shared import SharedExchange
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
class HierarchicalHandle:
    """The memory of one dispatch."""

    tokens: int
    token_M: torch.Tensor
    sent_G: list[int]
    received_G: list[int]
    inner: Any
    world: World
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows, each level's; without the 8 bytes of each choice."""
        inner: Traffic = self.inner.traffic
        return Traffic(
            self._over_ranks(self.sent_G, inner.sent_R), self._over_ranks(self.received_G, inner.received_R)
        )

    def _over_ranks(self, rows_G: list[int], inside_L: list[int]) -> list[int]:
        world, L = self.world, self.world.ranks_per_node
        bytes_R = [0] * world.size
        bytes_R[world.rank % L :: L] = [rows * self.row_bytes for rows in rows_G]
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

    def dispatch(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> tuple[Received, HierarchicalHandle]:
        """See `Dispatcher.dispatch`."""
        if torch.is_grad_enabled() and x_TD.requires_grad:
            raise RunError("the hierarchical dispatcher carries no gradient; train with --dispatch flat")
        rank_TK, slot_TK = self._slots(experts_TK)
        chosen = _All(rank_TK, slot_TK, weights_TK, self._world.ranks_per_node, self._widest)
        token_M, rows_G = chosen.rows_across(self._world)
        packed_P2, choices_G = chosen.packed_across(self._world)
        arriving_G2 = self._across.exchange_counts(torch.stack((rows_G, choices_G), dim=1))
        sent_G, received_G = rows_G.tolist(), arriving_G2[:, 0].tolist()
        rows_AD = self._buffers.take("across", (sum(received_G), x_TD.shape[1]), x_TD.dtype, x_TD.device)
        packed_A2 = packed_P2.new_empty((int(arriving_G2[:, 1].sum()), 2))
        moving = [
            self._across.exchange_rows(rows_AD, take_rows(x_TD, token_M, self._buffers), received_G, sent_G),
            self._across.exchange_rows(packed_A2, packed_P2, arriving_G2[:, 1].tolist(), choices_G.tolist()),
        ]
        for pending in moving:
            pending.wait()
        choices = chosen.here(self._world, packed_A2, len(rows_AD))
        received, inner = self._inside.dispatch([x_TD, rows_AD], choices)
        row_bytes = x_TD.shape[1] * x_TD.element_size()
        handle = HierarchicalHandle(len(x_TD), token_M, sent_G, received_G, inner, self._world, row_bytes)
        return received, handle

    def combine(self, y_ND: torch.Tensor, handle: HierarchicalHandle) -> torch.Tensor:
        """See `Dispatcher.combine`."""
        sums_XD = self._inside.combine(y_ND, handle.inner)
        own_TD, away_AD = sums_XD[: handle.tokens], sums_XD[handle.tokens :]
        shape = (len(handle.token_M), y_ND.shape[1])
        back_MD = self._buffers.take("back", shape, y_ND.dtype, y_ND.device)
        self._across.exchange_rows(back_MD, away_AD, handle.sent_G, handle.received_G).wait()
        return own_TD.index_add_(0, handle.token_M, back_MD)


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
        counts_G = torch.bincount(node_P[away_P], minlength=world.size // world.ranks_per_node)
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
        return Choices(
            T + arrived,
            torch.cat((own_P // K, row_A)),
            place_P // self._widest,
            place_P % self._widest,
            torch.cat((self._weights_TK.flatten()[own_P].float(), weight_A)),
        )
