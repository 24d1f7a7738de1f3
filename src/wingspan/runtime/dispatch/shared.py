"""For ranks of one host: rows are never sent. Who needs them reads them where they lie, in shared memory.

Dispatch publishes each rank's tokens once, and which of them each slot wants; the experts' ranks gather straight
from there, into the block that will publish their outputs. Outputs written over these rows are published as they
lie, others are copied there. The tokens' homes sum straight from that block. Inference only.

Shapes: T tokens of this rank, K experts per token, D hidden size, R ranks, S the most slots of a rank,
P choices (token and expert), N rows computed here, X rows published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.errors import RunError
from wingspan.runtime.dispatch.choices import Choices, choices_of
from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.dispatch.dispatcher import (
    Capabilities,
    Handle,
    PeerBytes,
    Pending,
    Received,
    chunk_slices,
)
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.transport.shm import NodeTransport
from wingspan.specs.execution import DispatcherKind

_WORD_BYTES = 8


@dataclass(frozen=True)
class Block:
    """Room for a publication: tables of words at its head and, from the next whole row of memory on, rows."""

    offset: int
    rows_XD: torch.Tensor


@dataclass(frozen=True)
class SharedRoute:
    """The route of one chunk: rows that one after another are `parts`, and what each chose."""

    parts: Sequence[torch.Tensor]
    choices: Choices
    order_P: NDArray[np.int64]
    """Sorts the choices by slot."""
    counts_RS: NDArray[np.int64]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on its way to the experts."""
        return self.parts[0].shape[1] * self.parts[0].element_size()


@dataclass(frozen=True)
class SharedHandle(Handle):
    """What this rank computes for others, and the block for its outputs."""

    route: SharedRoute
    block: Block
    begin_RS: NDArray[np.int64]
    """Where each (source, slot)'s rows begin among the rows computed; the block's table."""
    rows_R: Sequence[int]

    @property
    def traffic(self) -> PeerBytes:
        """Bytes of the rows as the experts' ranks read them."""
        row_bytes = self.route.row_bytes
        sent_R = (self.route.counts_RS.sum(1) * row_bytes).tolist()
        return PeerBytes(sent_R, [n * row_bytes for n in self.rows_R])


class SharedMemoryDispatcher:
    """See the file's head. Same results as `FlatDispatcher`."""

    capabilities = Capabilities(DispatcherKind.FLAT)

    def __init__(self, transport: NodeTransport, slots: SlotMap, local_slots_R: Sequence[int]) -> None:
        self._slots = slots
        self._exchange = SharedExchange(transport, local_slots_R)

    def route(
        self,
        x_TD: torch.Tensor,
        experts_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        chunks: int,
        lane: int,  # noqa: ARG002 - the interface's
    ) -> list[SharedRoute]:
        """See `Dispatcher.route`; nothing need be agreed on: the counts lie beside the rows."""
        rank_TK, local_TK = self._slots(experts_TK)
        return [
            self._exchange.route([x_TD[part]], choices_of(rank_TK[part], local_TK[part], weights_TK[part]))
            for part in chunk_slices(len(x_TD), chunks)
        ]

    def send(self, route: SharedRoute) -> Pending[Received[SharedHandle]]:
        """See `Dispatcher.send`."""
        return self._exchange.send(route)

    def send_back(self, y_ND: torch.Tensor, handle: SharedHandle) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        return self._exchange.send_back(y_ND, handle)


class SharedExchange:
    """Rows and choices to the slots of one node's ranks, and weighted sums back."""

    def __init__(self, transport: NodeTransport, local_slots_R: Sequence[int]) -> None:
        self._memory = transport.memory
        self._rank = transport.world.rank
        self._local_slots = int(local_slots_R[self._rank])
        self._shape_RS = (len(local_slots_R), max(1, *local_slots_R))

    def route(
        self,
        parts: Sequence[torch.Tensor],
        choices: Choices,
        buffer: str = "",  # noqa: ARG002 - the interface's
    ) -> SharedRoute:
        """What each slot of the node gets of the rows (., D) that one after another are `parts`.

        Raises:
            RunError: a gradient is wanted.
        """
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            raise RunError("rows in shared memory carry no gradient; train with `transport` torch")
        R, S = self._shape_RS
        slot_P = (choices.rank_P * S + choices.slot_P).numpy()
        order_P = _order(slot_P, R * S)
        counts_RS = np.bincount(slot_P, minlength=R * S).reshape(R, S)
        return SharedRoute(parts, choices, order_P, counts_RS)

    def send(self, route: SharedRoute) -> Pending[Received[SharedHandle]]:
        """Let each choice's slot have its row: published now, read when waited for."""
        rows, width, dtype = route.choices.rows, route.parts[0].shape[1], route.parts[0].dtype
        tables = [route.counts_RS.ravel(), route.choices.row_P.numpy()[route.order_P]]
        block = self._block(tables, (rows, width), dtype)
        for place, part in zip(block.rows_XD.split([len(p) for p in route.parts]), route.parts, strict=True):
            place.copy_(part.detach())
        number = self._memory.publish(block.offset)
        return Pending((), lambda: self._receive(number, width, dtype, route))

    def send_back(self, y_ND: torch.Tensor, handle: SharedHandle) -> Pending[torch.Tensor]:
        """The outputs of this rank's slots to whoever chose them: the weighted sum per row of the route."""
        block = self._holding(y_ND, handle)
        number = self._memory.publish(block.offset)
        return Pending((), lambda: self._sum(number, y_ND.dtype, y_ND.shape[1], handle.route))

    def _receive(
        self, number: int, width: int, dtype: torch.dtype, route: SharedRoute
    ) -> Received[SharedHandle]:
        arriving_RS, row_N = self._arriving(number, width * dtype.itemsize)
        begin_RS = _begins(arriving_RS.T).T
        block = self._block([begin_RS.ravel()], (len(row_N), width), dtype)
        torch.index_select(self._memory.rows(dtype, width), 0, torch.from_numpy(row_N), out=block.rows_XD)
        self._memory.finish(number)
        counts_S = Counts(arriving_RS.sum(0).tolist()[: self._local_slots], block.rows_XD.device)
        handle = SharedHandle(route, block, begin_RS, tuple(arriving_RS.sum(1).tolist()))
        return Received(block.rows_XD, counts_S, handle)

    def _holding(self, y_ND: torch.Tensor, handle: SharedHandle) -> Block:
        """A block that holds these outputs: that of the rows, where it can."""
        block = handle.block
        if _same_memory(y_ND, block.rows_XD):
            return block
        if (y_ND.shape, y_ND.dtype) != (block.rows_XD.shape, block.rows_XD.dtype):
            block = self._block([handle.begin_RS.ravel()], (len(y_ND), y_ND.shape[1]), y_ND.dtype)
            self._memory.discard(handle.block.offset)
        block.rows_XD.copy_(y_ND.detach())
        return block

    def _sum(self, number: int, dtype: torch.dtype, width: int, route: SharedRoute) -> torch.Tensor:
        first_RS = self._results(number, width * dtype.itemsize)
        # The choices in slot order are numbered on; each slot's stretch of them starts elsewhere.
        shift_RS = first_RS - _begins(route.counts_RS)
        place_P = np.empty_like(route.order_P)
        place_P[route.order_P] = np.arange(len(place_P)) + np.repeat(
            shift_RS.ravel(), route.counts_RS.ravel()
        )
        sums_XD = route.choices.weighted_sum(self._memory.rows(dtype, width), torch.from_numpy(place_P))
        self._memory.finish(number)
        return sums_XD

    def _block(self, tables: list[NDArray[np.int64]], shape_XD: tuple[int, int], dtype: torch.dtype) -> Block:
        """A block with these tables, and rows still to be written."""
        rows, width = shape_XD
        row_bytes = width * dtype.itemsize
        words = sum(len(table) for table in tables)
        offset = self._memory.allocate(words * _WORD_BYTES + (1 + rows) * row_bytes)
        begin = offset // _WORD_BYTES
        np.concatenate(tables, out=self._memory.words[begin : begin + words])
        first = -(-(offset + words * _WORD_BYTES) // row_bytes)
        return Block(offset, self._memory.block_rows(first * row_bytes, rows, width, dtype))

    def _tables(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where every rank's publication begins, in words (R), and the table at its head (R, R, S)."""
        R, S = self._shape_RS
        begin_R = self._memory.offsets_of(number) // _WORD_BYTES
        return begin_R, self._memory.words[begin_R[:, None] + np.arange(R * S)].reshape(R, R, S)

    def _arriving(self, number: int, row_bytes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many rows each (source, slot) brings here, and where in memory each row lies, sorted by slot."""
        R, S = self._shape_RS
        begin_R, counts_RRS = self._tables(number)
        ends_RR = counts_RRS.sum(2).cumsum(1)
        first_R = -(-(begin_R + R * S + ends_RR[:, -1]) * _WORD_BYTES // row_bytes)
        to_R = begin_R + R * S + ends_RR[:, self._rank]
        arriving_RS = counts_RRS[:, self._rank]
        from_R = to_R - arriving_RS.sum(1)
        stretches = zip(from_R.tolist(), to_R.tolist(), first_R.tolist(), strict=True)
        row_N = np.concatenate([self._memory.words[start:end] + first for start, end, first in stretches])
        return arriving_RS, row_N if S == 1 else row_N[_by_slot(arriving_RS)]

    def _results(self, number: int, row_bytes: int) -> NDArray[np.int64]:
        """Where in memory every (rank, slot)'s outputs for this rank's tokens begin, in rows."""
        R, S = self._shape_RS
        begin_R, begins_RRS = self._tables(number)
        first_R = -(-(begin_R + R * S) * _WORD_BYTES // row_bytes)
        return begins_RRS[:, self._rank] + first_R[:, None]


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)


def _begins(counts_XY: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each entry's items begin when all lie one after another in that order; shaped like the counts."""
    flat = counts_XY.ravel()
    return (flat.cumsum() - flat).reshape(counts_XY.shape)


def _by_slot(arriving_RS: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that brings rows sorted by (source, slot) into that by (slot, source)."""
    sources, slots = arriving_RS.shape
    slot_N = np.repeat(np.tile(np.arange(slots), sources), arriving_RS.ravel())
    return _order(slot_N, slots)


def _order(slot_P: NDArray[np.int64], slots: int) -> NDArray[np.int64]:
    """The stable order that sorts slot numbers below `slots`."""
    # As narrow numbers, which numpy sorts by their digits: four times as fast.
    return np.argsort(slot_P.astype(np.min_scalar_type(slots)), kind="stable")
