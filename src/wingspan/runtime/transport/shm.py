"""Rows to ranks of the own node through shared memory, all others by another transport.

The processor's counterpart of NVLink inside a node and a network between nodes. Beneath the same interface, so
every dispatcher runs on it.

Shapes: R ranks, C counts, N rows, B bytes per row, W ranks of this node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import torch

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import World, within
from wingspan.runtime.transport import futex
from wingspan.runtime.transport.over_another import OverAnother
from wingspan.runtime.transport.shared_memory import (
    MemoryHandle,
    Peer,
    SharedMemory,
    SharedMemoryError,
    handle_of,
    share_among,
)
from wingspan.runtime.transport.transport import Transport, as_bytes
from wingspan.runtime.transport.work_handle import WorkHandle

T = TypeVar("T")

_WORD_BYTES = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class NodeTransport(OverAnother):
    """Shared memory among the ranks of one node; what is not rows goes by their part of another transport.

    Args:
        memory: the node's.
        world: this rank's place in the node.
        outer: a transport among the same ranks.
    """

    def __init__(self, memory: SharedMemory, world: World, outer: Transport) -> None:
        super().__init__(world, outer)
        self.memory = memory

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,  # noqa: ARG002 - the interface's
    ) -> WorkHandle:
        """See `Transport`. What is sent may be written again at once; what comes is read in `wait`."""
        return _Exchange(
            self.memory, self._publish(as_bytes(sent_NB), sent_R), as_bytes(received_NB), received_R
        )

    def close(self) -> None:
        """Leave the shared memory; `outer` stays open."""
        self.memory.close()

    def _publish(self, sent_NB: torch.Tensor, sent_R: Sequence[int]) -> int:
        """Where each rank's rows begin (R words), then the rows."""
        row_bytes = sent_NB.stride(0) if len(sent_NB) else 0
        begin_R = [0, *accumulate(rows * row_bytes for rows in sent_R)]
        offset = self.memory.allocate(len(begin_R) * _WORD_BYTES + sent_NB.numel())
        word = offset // _WORD_BYTES
        self.memory.words[word : word + len(begin_R)] = begin_R
        if sent_NB.numel():
            start = offset + len(begin_R) * _WORD_BYTES
            self.memory.region[start : start + sent_NB.numel()].copy_(sent_NB.reshape(-1))
        return self.memory.publish(offset)


class SharedMemoryTransport(OverAnother):
    """`inside` the node by shared memory; `outer` across nodes and for everything that is not rows.

    Args:
        outer: a transport over all ranks; it stays open when this one closes.

    Raises:
        InputError: no futexes here, or ranks that count as one node run on several machines.
        SharedMemoryError: on every rank, where one of them cannot share memory.
    """

    def __init__(self, outer: Transport) -> None:
        if not futex.available():
            raise InputError("`transport` shm needs Linux on x86-64 or ARM64; use `transport` torch")
        if not one_host_per_node(outer):
            raise InputError(
                f"`transport` shm: {outer.world.ranks_per_node} ranks count as one node but run on several "
                "machines; set `ranks_per_node`"
            )
        super().__init__(outer.world, outer)
        per_node = outer.world.ranks_per_node
        self._first = outer.world.node * per_node
        self._last = self._first + per_node
        members = list(range(self._first, self._last))
        self._node_only = None if self.covers_all else outer.split(outer.world.node)
        among = self._node_only or outer
        try:
            memory = _meet(outer, members)
        except SharedMemoryError:
            if self._node_only is not None:
                self._node_only.close()
            raise
        self.inside = NodeTransport(memory, within(outer.world, members), among)

    @property
    def covers_all(self) -> bool:
        """Whether all ranks of the group share this memory."""
        return self.world.size == self._last - self._first

    def exchange_rows(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool = False,
    ) -> WorkHandle:
        """See `Transport`."""
        if self.covers_all:
            return self.inside.exchange_rows(received_NB, sent_NB, received_R, sent_R)
        here, to_here = self._here(received_NB, received_R), self._here(sent_NB, sent_R)
        outside = self._exchange_outside(received_NB, sent_NB, received_R, sent_R, bulk=bulk)
        local = slice(self._first, self._last)
        return _Both(self.inside.exchange_rows(here, to_here, received_R[local], sent_R[local]), outside)

    def close(self) -> None:
        """Leave the shared memory; `outer` stays open."""
        self.inside.close()
        if self._node_only is not None:
            self._node_only.close()

    def _here(self, rows_NB: torch.Tensor, count_R: Sequence[int]) -> torch.Tensor:
        """This node's part of the rows: its ranks follow each other, so it lies together."""
        start = sum(count_R[: self._first])
        return rows_NB[start : start + sum(count_R[self._first : self._last])]

    def _exchange_outside(
        self,
        received_NB: torch.Tensor,
        sent_NB: torch.Tensor,
        received_R: Sequence[int],
        sent_R: Sequence[int],
        *,
        bulk: bool,
    ) -> WorkHandle:
        """The rows of other nodes; they must lie together too, without this node's between them."""
        from_R, to_R = self._only_outside(received_R), self._only_outside(sent_R)
        sent = torch.cat(self._around(sent_NB, sent_R))
        before, after = self._around(received_NB, received_R)
        if not (len(before) and len(after)):
            return self.outer.exchange_rows(before if len(before) else after, sent, from_R, to_R, bulk=bulk)
        rows = received_NB.new_empty((len(before) + len(after), *received_NB.shape[1:]))
        pending = self.outer.exchange_rows(rows, sent, from_R, to_R, bulk=bulk)
        return _Scattered(pending, [(before, rows[: len(before)]), (after, rows[len(before) :])])

    def _around(self, rows_NB: torch.Tensor, count_R: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of the ranks before this node, and of those after it."""
        return rows_NB[: sum(count_R[: self._first])], rows_NB[len(rows_NB) - sum(count_R[self._last :]) :]

    def _only_outside(self, count_R: Sequence[int]) -> list[int]:
        return [0 if self._first <= r < self._last else n for r, n in enumerate(count_R)]


class _Exchange:
    """Rows that this node's ranks have published, or soon will."""

    def __init__(
        self, memory: SharedMemory, number: int, received_NB: torch.Tensor, received_R: Sequence[int]
    ) -> None:
        self._memory = memory
        self._number = number
        self._received_NB = received_NB
        self._begin_R = [0, *accumulate(received_R)]

    def wait(self) -> None:
        """Copy each rank's rows as it has them ready; sleep only where none has."""
        memory = self._memory
        # From the next rank on round the node, so that not all read from the same one.
        missing = [(memory.own + i) % memory.size for i in range(memory.size)]
        while missing:
            ready = [rank for rank in missing if memory.ready(rank, self._number)] or missing[-1:]
            for rank in ready:
                self._take(rank)
            missing = [rank for rank in missing if rank not in ready]
        memory.finish(self._number)

    def _take(self, rank: int) -> None:
        memory = self._memory
        offset = memory.offset_of(rank, self._number)
        rows_NB = self._received_NB[self._begin_R[rank] : self._begin_R[rank + 1]]
        if rows_NB.numel():
            begin = int(memory.words[offset // _WORD_BYTES + memory.own])
            start = offset + (memory.size + 1) * _WORD_BYTES + begin
            rows_NB.view(-1).copy_(memory.region[start : start + rows_NB.numel()])


class _Both:
    """Two transfers at once."""

    def __init__(self, inside: WorkHandle, outside: WorkHandle) -> None:
        self._parts = (inside, outside)

    def wait(self) -> None:
        for part in self._parts:
            part.wait()


class _Scattered:
    """An outer transfer whose rows belong before and behind this node's."""

    def __init__(self, pending: WorkHandle, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._pending = pending
        self._parts = parts

    def wait(self) -> None:
        self._pending.wait()
        for place, rows in self._parts:
            place.copy_(rows)


def one_host_per_node(transport: Transport) -> bool:
    """Collective: whether all ranks that count as one node seem to run on one machine, for every node."""
    hosts = transport.broadcast(transport.gather(_host()))
    per_node = transport.world.ranks_per_node
    nodes = [hosts[i : i + per_node] for i in range(0, transport.world.size, per_node)]  # type: ignore[index]
    return all(len(set(node)) == 1 for node in nodes)


def _host() -> str:
    """What processes have in common that can open each other's memory: the machine, and its process numbers.

    Containers on one machine have process numbers of their own; machines that were copied while they ran may have
    equal ones, which shows when the memory is opened.
    """
    return _BOOT_ID.read_text() + os.readlink("/proc/self/ns/pid")


def _meet(outer: Transport, members: list[int]) -> SharedMemory:
    """Collective over all ranks: the first of each node makes its memory, the others open it, or none has any.

    That they find its memory by its name shows that they are on one machine; `one_host_per_node` only guesses.

    Raises:
        SharedMemoryError: on every rank, where one of them cannot.
    """
    rank, first = outer.world.rank, members[0]
    fd, problem = -1, ""
    handle: MemoryHandle | None = None
    try:
        if rank == first:
            try:
                fd = SharedMemory.create(len(members))
                handle = handle_of(fd)
            except (SharedMemoryError, OSError) as error:
                problem = str(error)
        # The first rank keeps its descriptor until all have opened it.
        told = _agree(outer, problem, (Peer(rank, os.getpid()), handle))
        with ExitStack() as opened:
            try:
                memory = _open([told[member] for member in members], members.index(rank))
                opened.callback(memory.close)
            except SharedMemoryError as error:
                problem = str(error)
            _agree(outer, problem, None)
            opened.pop_all()
    finally:
        if fd >= 0:
            os.close(fd)
    return memory


def _open(told: Sequence[tuple[Peer, MemoryHandle | None]], own: int) -> SharedMemory:
    handle = told[0][1]
    if handle is None:
        raise SharedMemoryError(f"rank {told[0][0].rank} made none")
    return share_among([peer for peer, _ in told], own, handle)


def _agree(outer: Transport, problem: str, value: T) -> list[T]:
    """Collective: every rank's value, unless one has a problem: then all raise the first one's."""
    everyone: list[tuple[str, T]] = outer.broadcast(outer.gather((problem, value)))  # type: ignore[assignment]
    for rank, (said, _) in enumerate(everyone):
        if said:
            raise SharedMemoryError(f"rank {rank}: {said}")
    return [theirs for _, theirs in everyone]
