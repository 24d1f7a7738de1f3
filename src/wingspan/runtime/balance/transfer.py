"""One layer's experts on their way, on one rank: read, sent in pieces, received into staging, verified, prepared.

All of it happens in a thread beside the steps, on a GPU in a stream of its own. The thread sends one piece per
`release`, so that a step never shares its links with more than that; what arrives is compared with the sender's
checksum before it may be used.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from enum import IntEnum

import torch

from wingspan.balance.moves import Move
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.model.experts import ExpertWeights, LocalExperts
from wingspan.runtime.ranks.side_stream import side_stream

_DIGEST_BYTES = 16


class State(IntEnum):
    """How far a rank's part of a layer is."""

    UNDER_WAY = 0
    READY = 1
    CORRUPTED = 2
    LOST = 3


class Transfer:
    """This rank's sends and receives of one layer.

    Args:
        layer: its number, part of every checksum.
        moves: of the layer, the same list on every rank.
        rank: this one.
        experts: of the layer.
        channel: carries the bytes.
        first_tag: of this layer's messages; every move takes one.
        step_bytes: most bytes that a rank sends, and most that it receives, per `release`.
        arrival_seconds: how long nothing may happen before what is missing counts as lost.
    """

    def __init__(
        self,
        layer: int,
        moves: Sequence[Move],
        rank: int,
        experts: LocalExperts,
        channel: WeightChannel,
        first_tag: int,
        step_bytes: int,
        arrival_seconds: float,
    ) -> None:
        self.layer = layer
        self.moves = moves
        self.prepared: dict[int, ExpertWeights] = {}
        """By slot here, once the state is `READY`."""
        self._experts = experts
        self._channel = channel
        tagged = [(first_tag + n, move) for n, move in enumerate(moves)]
        self._sends = [(tag, move) for tag, move in tagged if move.source == rank]
        self._receives = [(tag, move) for tag, move in tagged if move.destination == rank]
        self._piece_bytes = _piece_bytes(moves, step_bytes)
        self._message_bytes = experts.slot_bytes + _DIGEST_BYTES
        self._arrival_seconds = arrival_seconds
        self._may_go = threading.Semaphore(0)
        self._released = 0
        self._pieces_done = 0
        self._progress_seconds = time.monotonic()
        self._abandoned = False
        self._corrupted: Move | None = None
        self._side = side_stream(experts.device)
        self._ready = self._side.mark()
        self._verified = not (self._sends or self._receives)
        self._waits_for: Move | None = None
        self._thread = threading.Thread(target=self._run, name=f"move-layer-{layer}", daemon=True)
        if not self._verified:
            self._thread.start()

    @property
    def pieces(self) -> int:
        """Pieces of every message, hence steps that the layer takes at least."""
        return -(-self._message_bytes // self._piece_bytes)

    @property
    def staging_bytes(self) -> int:
        """Memory beside the model: experts read for sending, experts received, and these prepared for use."""
        read = len({move.source_slot for _, move in self._sends})
        return (read + 2 * len(self._receives)) * self._message_bytes

    def release(self) -> None:
        """Let one more piece go."""
        if self._released < self.pieces:
            if self._released == self._pieces_done:
                self._progress_seconds = time.monotonic()
            self._released += 1
            self._may_go.release()

    def abandon(self) -> None:
        """Nobody wants it any more: the thread ends at its next piece. One that waits for a message that never comes
        stays where it is; its message has a tag that no other will use."""
        self._abandoned = True
        self._may_go.release()

    def status(self) -> tuple[State, Move | None]:
        """How far it is, and the move that went wrong, if one did; never waits."""
        if self._corrupted is not None:
            return State.CORRUPTED, self._corrupted
        waited = time.monotonic() - self._progress_seconds
        overdue = self._pieces_done < self._released and waited > self._arrival_seconds
        dead = self._thread.ident is not None and not self._thread.is_alive()
        # Read last: a thread that has just come to its end has set it before.
        if self._verified:
            return State.READY, None
        if self._corrupted is None and (overdue or dead):
            return State.LOST, self._waits_for or (self._receives or self._sends)[0][1]
        return State.UNDER_WAY, None

    def _run(self) -> None:
        with self._side.beside(self._ready):
            self._move()

    def _move(self) -> None:
        try:
            messages = self._read()
            buffers = [torch.empty(self._message_bytes, dtype=torch.uint8) for _ in self._receives]
            for piece in range(self.pieces):
                self._may_go.acquire()
                if self._abandoned:
                    return
                self._carry(
                    slice(piece * self._piece_bytes, (piece + 1) * self._piece_bytes), messages, buffers
                )
                self._progress_seconds = time.monotonic()
                self._pieces_done += 1
            self._verify(buffers)
        except (RuntimeError, MemoryError):
            # The connection broke or memory ran out. The thread's end is noticed; a dead peer ends the step too.
            return

    def _read(self) -> list[torch.Tensor]:
        """The message of every send; a slot that several ranks want is read once."""
        read: dict[int, torch.Tensor] = {}
        for _, move in self._sends:
            if move.source_slot not in read:
                raw = self._experts.read(move.source_slot)
                read[move.source_slot] = torch.cat([raw, checksum(raw, self.layer, move.expert)])
        return [read[move.source_slot] for _, move in self._sends]

    def _carry(self, part: slice, messages: list[torch.Tensor], buffers: list[torch.Tensor]) -> None:
        pending = [
            (move, self._channel.receive(buffer[part], move.source, tag))
            for (tag, move), buffer in zip(self._receives, buffers, strict=True)
        ]
        pending += [
            (move, self._channel.send(message[part], move.destination, tag))
            for (tag, move), message in zip(self._sends, messages, strict=True)
        ]
        for self._waits_for, transfer in pending:
            if transfer is not None:
                transfer.wait()

    def _verify(self, buffers: list[torch.Tensor]) -> None:
        for (_, move), buffer in zip(self._receives, buffers, strict=True):
            raw, sent_checksum = buffer[:-_DIGEST_BYTES], buffer[-_DIGEST_BYTES:]
            if not torch.equal(checksum(raw, self.layer, move.expert), sent_checksum):
                self._corrupted = move
                return
            self.prepared[move.destination_slot] = self._experts.prepare(raw)
        self._side.finish()
        self._verified = True


def checksum(raw: torch.Tensor, layer: int, expert: int) -> torch.Tensor:
    """BLAKE2b of one expert's bytes, bound to whose they are: right bytes in a wrong place do not pass."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=f"{layer}:{expert}".encode())
    digest.update(raw.numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _piece_bytes(moves: Sequence[Move], step_bytes: int) -> int:
    """Bytes of each message per step, so that no rank sends or receives more than `step_bytes` (one byte at least)."""
    sends, receives = [m.source for m in moves], [m.destination for m in moves]
    busiest = max((way.count(rank) for way in (sends, receives) for rank in way), default=1)
    return max(1, step_bytes // busiest)
