"""For ranks of one host: rows are never sent. Who needs them reads them where they lie, in shared memory.

Dispatch publishes each rank's tokens once, and which of them each slot wants; the experts' ranks gather straight
from there. Combine publishes the experts' outputs; the tokens' homes sum straight from there. Inference only.

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
from wingspan.runtime.buffers import Buffers
from wingspan.runtime.choices import Choices, choices_of
from wingspan.runtime.dispatch import Received, Traffic
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport_shm import NodeTransport

_WORD_BYTES = 8


@dataclass(frozen=True)
class SharedHandle:
    """The memory of one dispatch: what this rank chose, and how what it computes is laid out."""

    choices: Choices
    order_P: NDArray[np.int64]
    counts_RS: NDArray[np.int64]
    begin_RS: NDArray[np.int64]
    """Here: where each (source, slot)'s rows begin among the rows computed."""
    arriving_R: list[int]
    row_bytes: int

    @property
    def traffic(self) -> Traffic:
        """Bytes of the rows as the experts' ranks read them."""
        sent_R = (self.counts_RS.sum(1) * self.row_bytes).tolist()
        return Traffic(sent_R, [n * self.row_bytes for n in self.arriving_R])


class SharedMemoryDispatcher:
    """See the file's head. Same results as `FlatDispatcher`."""

    def __init__(
        self, transport: NodeTransport, slots: SlotMap, local_slots_R: Sequence[int], buffers: Buffers
    ) -> None:
        self._slots = slots
        self._exchange = SharedExchange(transport, local_slots_R, buffers)

    def dispatch(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> tuple[Received, SharedHandle]:
        """See `Dispatcher.dispatch`."""
        return self._exchange.dispatch([x_TD], choices_of(*self._slots(experts_TK), weights_TK))

    def combine(self, y_ND: torch.Tensor, handle: SharedHandle) -> torch.Tensor:
        """See `Dispatcher.combine`."""
        return self._exchange.combine(y_ND, handle)


class SharedExchange:
    """Rows and choices to the slots of one node's ranks, and weighted sums back."""

    def __init__(self, transport: NodeTransport, local_slots_R: Sequence[int], buffers: Buffers) -> None:
        self._memory = transport.memory
        self._rank = transport.world.rank
        self._local_slots = int(local_slots_R[self._rank])
        self._shape_RS = (len(local_slots_R), max(1, *local_slots_R))
        self._buffers = buffers

    def dispatch(self, parts: Sequence[torch.Tensor], choices: Choices) -> tuple[Received, SharedHandle]:
        """Let each choice's slot have its row.

        Args:
            parts: tensors (., D) that one after another are the rows.
            choices: of these rows, for ranks of the node.

        Raises:
            RunError: a gradient is wanted.
        """
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            raise RunError("rows in shared memory carry no gradient; train with --transport torch")
        R, S = self._shape_RS
        slot_P = (choices.rank_P * S + choices.slot_P).numpy()
        order_P = np.argsort(slot_P, kind="stable")
        counts_RS = np.bincount(slot_P, minlength=R * S).reshape(R, S)
        number = self._publish([counts_RS.ravel(), choices.row_P.numpy()[order_P]], parts)
        width, dtype = parts[0].shape[1], parts[0].dtype
        row_bytes = width * dtype.itemsize
        arriving_RS, row_N = self._arriving(number, row_bytes)
        rows_ND = self._buffers.take("dispatch", (len(row_N), width), dtype, parts[0].device)
        torch.index_select(self._memory.rows(dtype, width), 0, torch.from_numpy(row_N), out=rows_ND)
        self._memory.finish_all(number)
        begin_RS = _begins(arriving_RS.T).T
        arriving_R = arriving_RS.sum(1).tolist()
        handle = SharedHandle(choices, order_P, counts_RS, begin_RS, arriving_R, row_bytes)
        return Received(rows_ND, arriving_RS.sum(0).tolist()[: self._local_slots]), handle

    def combine(self, y_ND: torch.Tensor, handle: SharedHandle) -> torch.Tensor:
        """The outputs of this rank's slots to whoever chose them: the weighted sum per row of `dispatch`."""
        number = self._publish([handle.begin_RS.ravel()], [y_ND])
        first_RS = self._results(number, y_ND.shape[1] * y_ND.element_size())
        # The choices in slot order are numbered on; each slot's stretch of them starts elsewhere.
        shift_RS = first_RS - _begins(handle.counts_RS)
        place_P = np.empty_like(handle.order_P)
        place_P[handle.order_P] = np.arange(len(place_P)) + np.repeat(
            shift_RS.ravel(), handle.counts_RS.ravel()
        )
        memory_rows = self._memory.rows(y_ND.dtype, y_ND.shape[1])
        sums_XD = handle.choices.weighted_sum(memory_rows, torch.from_numpy(place_P))
        self._memory.finish_all(number)
        return sums_XD

    def _publish(self, tables: list[NDArray[np.int64]], parts: Sequence[torch.Tensor]) -> int:
        """Let the others read tables of words and, from the next whole row of memory on, rows."""
        memory, width, dtype = self._memory, parts[0].shape[1], parts[0].dtype
        row_bytes = width * dtype.itemsize
        words = sum(len(table) for table in tables)
        offset = memory.allocate(words * _WORD_BYTES + (1 + sum(len(part) for part in parts)) * row_bytes)
        begin = offset // _WORD_BYTES
        np.concatenate(tables, out=memory.words[begin : begin + words])
        first = -(-(offset + words * _WORD_BYTES) // row_bytes)
        for part in parts:
            memory.rows(dtype, width)[first : first + len(part)].copy_(part.detach())
            first += len(part)
        return memory.publish(offset)

    def _tables(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where every rank's publication begins, in words (R), and the table at its head (R, R, S)."""
        R, S = self._shape_RS
        begins = [self._memory.offset_of(rank, number) // _WORD_BYTES for rank in range(R)]
        heads = np.stack([self._memory.words[begin : begin + R * S] for begin in begins])
        return np.array(begins), heads.reshape(R, R, S)

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


def _begins(counts_XY: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each entry's items begin when all lie one after another in that order; shaped like the counts."""
    flat = counts_XY.ravel()
    return (flat.cumsum() - flat).reshape(counts_XY.shape)


def _by_slot(arriving_RS: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that brings rows sorted by (source, slot) into that by (slot, source)."""
    sources, slots = arriving_RS.shape
    slot_N = np.repeat(np.tile(np.arange(slots), sources), arriving_RS.ravel())
    return np.argsort(slot_N, kind="stable")
