"""A dispatcher as another package would bring it: every rank sees all tokens, and takes those that its slots want.

Slow, and simple enough to be an oracle. It uses nothing of the runtime but the dispatcher's contract.

Shapes: T tokens of this rank, Z the most of any rank, K experts per token, D hidden size, R ranks, N rows computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.dispatch.dispatcher import Capabilities, Handle, PeerBytes, Pending, Received
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.running import RowPrecision


@dataclass(frozen=True)
class GatherRoute:
    """All ranks' tokens, with the slot (-1 for padding) and the weight of each choice."""

    x_RZD: torch.Tensor
    slot_RZK: torch.Tensor
    weights_RZK: torch.Tensor
    tokens: int
    dtype: torch.dtype
    """The experts want rows as the model has them."""


@dataclass(frozen=True)
class GatherHandle(Handle):
    """Which token, counted through all ranks, each row computed here is of, and its weight."""

    route: GatherRoute
    token_N: torch.Tensor
    weight_N: torch.Tensor

    @property
    def traffic(self) -> PeerBytes:
        """Every rank's padded tokens go to every rank."""
        R, Z, D = self.route.x_RZD.shape
        return PeerBytes([4 * Z * D] * R, [4 * Z * D] * R)


class GatherDispatcher:
    """See the file's head."""

    capabilities = Capabilities(DispatcherKind.FLAT, overlap=False, precisions=frozenset({RowPrecision.SAME}))

    def __init__(
        self, transport: Transport, slots: SlotMap, local_slots_R: Sequence[int], buffers: Buffers
    ) -> None:
        self._transport = transport
        self._slots = slots
        self._local_slots = local_slots_R[transport.world.rank]
        self._widest = max(1, *local_slots_R)

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[GatherRoute]:
        """Share everything."""
        tokens = len(x_TD)
        most = int(self._transport.share(torch.tensor(tokens)).max())
        rank_TK, local_TK = self._slots(experts_TK)
        x_RZD, slot_RZK, weights_RZK = (
            self._transport.share(torch.nn.functional.pad(part, (0, 0, 0, most - tokens), value=fill))
            for part, fill in (
                (x_TD.float(), 0.0),
                (rank_TK * self._widest + local_TK, -1),
                (weights_TK.float(), 0.0),
            )
        )
        return [GatherRoute(x_RZD, slot_RZK, weights_RZK, tokens, x_TD.dtype)]

    def send(self, route: GatherRoute) -> Pending[Received[GatherHandle]]:
        """Take the rows of this rank's slots; the counts stay a tensor."""
        slot_P = route.slot_RZK.flatten()
        first = self._transport.world.rank * self._widest
        mine_P = ((slot_P >= first) & (slot_P < first + self._widest)).nonzero().flatten()
        order_N = mine_P[torch.argsort(slot_P[mine_P], stable=True)]
        token_N = order_N // route.slot_RZK.shape[2]
        counts_S = Counts(torch.bincount(slot_P[order_N] - first, minlength=self._local_slots))
        handle = GatherHandle(route, token_N, route.weights_RZK.flatten()[order_N])
        rows_ND = route.x_RZD.flatten(0, 1)[token_N].to(route.dtype)
        return Pending((), lambda: Received(rows_ND, counts_S, handle))

    def send_back(self, y_ND: torch.Tensor, handle: GatherHandle) -> Pending[torch.Tensor]:
        """Share all sums, and add up those of this rank's tokens."""
        R, Z, D = handle.route.x_RZD.shape
        sums_XD = torch.zeros(R * Z, D).index_add_(0, handle.token_N, y_ND.float() * handle.weight_N[:, None])
        shared_RXD = self._transport.share(sums_XD)
        first = self._transport.world.rank * Z
        return Pending((), lambda: shared_RXD.sum(0)[first : first + handle.route.tokens])
