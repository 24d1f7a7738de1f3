"""Memory that the ranks of one host share: each publishes blocks, the others read them where they lie.

Every rank makes the same calls in the same order, so publication n of one rank belongs with publication n of
every other. A block stays until all have finished with it. The memory has no name and no file: it is gone with
its last process, however that ended.

Layout: control words, then one arena per rank. Arenas are address space; pages come when first written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import secrets
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.errors import LostPeerError, RunError
from wingspan.host import usable_cores, usable_memory_bytes
from wingspan.runtime.transport import futex
from wingspan.runtime.transport.arena import Arena

_LINE_BYTES = 64
_LINE_WORDS = _LINE_BYTES // 8
"""Words with different writers lie in different cache lines."""

_RING = 1024
"""Publications that a rank may be ahead of its slowest reader; many chunks' may be under way at once."""

_CHECK_SECONDS = 0.5
"""A rank that sleeps looks this often whether those it waits for are alive."""

_SILENCE_SECONDS = 600.0
"""Longest wait for a peer that lives but says nothing, as in the other transports."""

_SPIN_SECONDS = 30e-6
"""Time to look again before sleeping, where every rank has a core: about what going to sleep costs."""


class SharedMemoryError(RunError):
    """This machine, or a limit on this process, does not let its ranks share memory."""


@dataclass(frozen=True)
class Peer:
    """A rank of this host: its number in the whole group, for messages, and its process."""

    rank: int
    pid: int


class SharedMemory:
    """One rank's hold on the shared memory.

    Args:
        fd: of the memory, made by `create`; this object keeps a mapping, not the descriptor.
        peers: all ranks of this host, in order; the same on each.
        own: this rank's place among them.

    Raises:
        LostPeerError: one of them has ended.
        SharedMemoryError: the memory cannot be mapped, or the others not be watched.

    `region` is all of the memory as bytes, `words` the same as int64.
    """

    def __init__(self, fd: int, peers: Sequence[Peer], own: int) -> None:
        self.own = own
        self.size = len(peers)
        self._peers = peers
        self._map = _map(fd)
        self.region = torch.frombuffer(self._map, dtype=torch.uint8)
        # The same bytes as another tensor: torch refuses to gather rows of one into itself.
        self._writable = torch.frombuffer(self._map, dtype=torch.uint8)
        self.words = np.frombuffer(self._map, dtype=np.int64, count=len(self._map) // 8)
        self._base = self.region.data_ptr()
        self._control = (ctypes.c_uint64 * (_control_bytes(self.size) // 8)).from_address(self._base)
        self._finished_start = self.size * _LINE_WORDS
        self._ring_start = 2 * self.size * _LINE_WORDS
        self._posted_R = self.words[: self._finished_start : _LINE_WORDS]
        ring_end = self._ring_start + self.size * _RING
        self._offset_RN = self.words[self._ring_start : ring_end].reshape(self.size, _RING)
        arena_bytes = (len(self.region) - _control_bytes(self.size)) // self.size
        arena_start = _control_bytes(self.size) + own * arena_bytes
        self._arena = Arena(arena_start, arena_start + arena_bytes)
        self._rows: dict[tuple[torch.dtype, int], torch.Tensor] = {}
        self._published = 0
        self._finished: set[int] = set()
        self._all_finished = 0
        self._processes = _watched(peers)
        self._spin_seconds = _SPIN_SECONDS if usable_cores() >= self.size else 0.0

    @staticmethod
    def create(ranks: int) -> int:
        """Make memory for that many ranks; returns its descriptor.

        Raises:
            SharedMemoryError: the system does not give it.
        """
        arena_bytes = usable_memory_bytes() // (2 * ranks) // mmap.PAGESIZE * mmap.PAGESIZE
        size_bytes = _control_bytes(ranks) + ranks * arena_bytes
        fd = -1
        try:
            # The name is a token: on another machine the same process and descriptor are something else.
            fd = os.memfd_create(f"wingspan-{secrets.token_hex(16)}", os.MFD_CLOEXEC)
            os.ftruncate(fd, size_bytes)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            limit = " (ulimit -f)" if error.errno == errno.EFBIG else ""
            raise SharedMemoryError(
                f"{size_bytes / 1e9:.1f} GB of shared memory cannot be made: {error.strerror}{limit}"
            ) from None
        return fd

    def allocate(self, size_bytes: int, align_bytes: int = _LINE_BYTES) -> int:
        """A block to write and then publish: its offset in `region`, a multiple of `align_bytes`.

        Raises:
            RunError: no room beside the blocks that this rank still needs itself.
        """
        while True:
            self._release()
            offset = self._arena.take(size_bytes, align_bytes)
            if offset is not None:
                return offset
            oldest = self._arena.oldest
            if oldest is None or oldest > self._all_finished:
                raise RunError(
                    f"rank {self._peers[self.own].rank}: {size_bytes / 1e9:.2f} GB at once do not fit its "
                    f"{self._arena.size_bytes / 1e9:.2f} GB of shared memory; use `transport` torch or fewer tokens"
                )
            self._until_finished(oldest)

    def discard(self, offset: int) -> None:
        """Give back a block that is not to be published after all."""
        self._arena.discard(offset)

    def publish(self, offset: int) -> int:
        """Let the others read the block at `offset`, no longer to be written; returns the publication's number."""
        number = self._published + 1
        if number > _RING:
            self._until_finished(number - _RING)
        self._control[self._ring_start + self.own * _RING + number % _RING] = offset
        self._arena.publish(offset, number)
        self._published = number
        word = self._posted_word(self.own)
        futex.fence(self._address(word))
        self._control[word] = number
        futex.wake(self._address(word))
        return number

    def rows(self, dtype: torch.dtype, width: int) -> torch.Tensor:
        """All memory as rows of one kind, wherever they lie; only published ones mean anything."""
        if (dtype, width) not in self._rows:
            row_bytes = width * dtype.itemsize
            count = len(self.region) // row_bytes
            self._rows[dtype, width] = self.region[: count * row_bytes].view(dtype).view(count, width)
        return self._rows[dtype, width]

    def block_rows(self, offset: int, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows (rows, width) of an own block, from that offset in `region` on, to be written."""
        end = offset + rows * width * dtype.itemsize
        return self._writable[offset:end].view(dtype).view(rows, width)

    def ready(self, peer: int, number: int) -> bool:
        """Whether that rank has published so far; never waits."""
        return self._control[self._posted_word(peer)] >= number

    def offset_of(self, peer: int, number: int) -> int:
        """Where that rank's publication lies; waits for it.

        Raises:
            LostPeerError: it ended, or is silent for too long.
        """
        word = self._posted_word(peer)
        if self._control[word] < number:
            self._sleep_until(peer, word, number)
        futex.fence(self._address(word))
        return int(self._control[self._ring_start + peer * _RING + number % _RING])

    def offsets_of(self, number: int) -> NDArray[np.int64]:
        """Where every rank's publication lies, in rank order (R); waits for all, as `offset_of` does."""
        if (self._posted_R < number).any():
            for peer in range(self.size):
                self.offset_of(peer, number)
        futex.fence(self._address(self._posted_word(self.own)))
        return self._offset_RN[:, number % _RING].copy()

    def finish(self, number: int) -> None:
        """Say that this rank needs no rank's publication of that number any more; once for each, in any order."""
        self._finished.add(number)
        while self._all_finished + 1 in self._finished:
            self._all_finished += 1
            self._finished.remove(self._all_finished)
        word = self._finished_word(self.own)
        futex.fence(self._address(word))
        self._control[word] = self._all_finished

    def close(self) -> None:
        """End the use of this object; the mapping goes with the last tensor that still looks at it."""
        for fd in self._processes:
            os.close(fd)
        self._rows.clear()
        del self.region, self._writable, self.words, self._control, self._posted_R, self._offset_RN, self._map

    def _release(self) -> None:
        """Forget blocks that all have finished with."""
        if self._arena.oldest is not None:
            self._arena.release(min(int(self._control[self._finished_word(r)]) for r in range(self.size)))

    def _until_finished(self, number: int) -> None:
        """Wait until no rank reads publications up to `number` any more. Rare: naps cost the readers nothing."""
        start, pause = time.monotonic(), 20e-6
        for reader in range(self.size):
            word = self._finished_word(reader)
            while self._control[word] < number:
                time.sleep(pause)
                pause = min(2 * pause, 1e-3)
                if time.monotonic() - start > _CHECK_SECONDS:
                    self._check(reader, start, lambda word=word: self._control[word] >= number)  # type: ignore[misc]

    def _sleep_until(self, peer: int, word: int, number: int) -> None:
        start = time.monotonic()
        while time.monotonic() < start + self._spin_seconds:
            if self._control[word] >= number:
                return
        while (seen := self._control[word]) < number:
            futex.wait(self._address(word), seen, _CHECK_SECONDS)
            if self._control[word] < number and time.monotonic() - start > _CHECK_SECONDS / 2:
                self._check(peer, start, lambda: self._control[word] >= number)

    def _check(self, peer: int, start: float, arrived: object) -> None:
        """Raise unless that rank lives; what it did before it ended counts."""
        name = f"rank {self._peers[self.own].rank} lost contact with its peers: rank {self._peers[peer].rank}"
        # Not `select`, which knows the first 1,024 descriptors only.
        process = select.poll()
        process.register(self._processes[peer], select.POLLIN)
        ended = bool(process.poll(0))
        if ended and callable(arrived) and not arrived():
            raise LostPeerError(f"{name} ended")
        if time.monotonic() - start > _SILENCE_SECONDS:
            raise LostPeerError(f"{name} said nothing for {_SILENCE_SECONDS:.0f} s")

    def _posted_word(self, rank: int) -> int:
        """The word that holds the number of a rank's last publication."""
        return rank * _LINE_WORDS

    def _finished_word(self, rank: int) -> int:
        """The word that holds the number up to which a rank has finished with all publications."""
        return self._finished_start + rank * _LINE_WORDS

    def _address(self, word: int) -> int:
        # The low half of the 64-bit word comes first on the machines that `futex` knows.
        return self._base + 8 * word


@dataclass(frozen=True)
class MemoryHandle:
    """Where a process of this host finds the memory, and its name, which no other memory has."""

    path: str
    name: str


def handle_of(fd: int) -> MemoryHandle:
    """For the others of this host; it holds while this process keeps the descriptor."""
    path = f"/proc/{os.getpid()}/fd/{fd}"
    return MemoryHandle(path, os.readlink(path))


def share_among(peers: Sequence[Peer], own: int, handle: MemoryHandle) -> SharedMemory:
    """Open the memory that the first of the host's ranks made.

    Args:
        peers: all ranks of this host.
        own: this rank's place among them.
        handle: the first one's.

    Raises:
        LostPeerError: one of them has ended.
        SharedMemoryError: the first rank's process is hidden from this one or on another machine, or see
            `SharedMemory`.
    """
    first = peers[0].rank
    try:
        # Before it is opened: at that place may lie what belongs to somebody else.
        if os.readlink(handle.path) != handle.name:
            raise SharedMemoryError(
                f"that of rank {first} is not found here: another machine that looks like the same one"
            )
        fd = os.open(handle.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SharedMemoryError(f"that of rank {first} cannot be opened: {error.strerror}") from None
    with contextlib.closing(os.fdopen(fd)):
        return SharedMemory(fd, peers, own)


def _map(fd: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, 0)
    except OSError as error:
        limit = " (ulimit -v)" if error.errno == errno.ENOMEM else ""
        size_bytes = os.fstat(fd).st_size
        raise SharedMemoryError(
            f"{size_bytes / 1e9:.1f} GB of shared memory cannot be mapped: {error.strerror}{limit}"
        ) from None


def _watched(peers: Sequence[Peer]) -> list[int]:
    """Descriptors that tell when a process has ended, which its number, given anew, would not."""
    with contextlib.ExitStack() as opened:
        processes = []
        for peer in peers:
            try:
                processes.append(os.pidfd_open(peer.pid))
            except ProcessLookupError:
                raise LostPeerError(f"rank {peer.rank} ended before it could share memory") from None
            except OSError as error:
                raise SharedMemoryError(f"rank {peer.rank} cannot be watched: {error.strerror}") from None
            opened.callback(os.close, processes[-1])
        opened.pop_all()
    return processes


def _control_bytes(ranks: int) -> int:
    size = 8 * ranks * (2 * _LINE_WORDS + _RING)
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
