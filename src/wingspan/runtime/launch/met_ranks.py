"""Ranks that a launcher started and that stay: rank 0 says what all do, itself among them; the others wait for it.

They wait at a connection to rank 0, not in an exchange: there nothing turns while nobody asks, and no wait is too long.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from wingspan.errors import RunError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.launch.obeying import END, Obey, obey_all
from wingspan.runtime.launch.reception import connect
from wingspan.runtime.transport.transport import Transport

_ENDED = "a rank has ended; start all anew"


@dataclass(frozen=True)
class Met:
    """A launch's ranks, met: seen from one of them.

    Args:
        group: that has met.
        transport: of this rank.
    """

    group: Group
    transport: Transport

    def ranks(self, prepare: Callable[[Transport], Obey]) -> MetRanks:
        """Collective: the ranks as rank 0 commands them. On another rank: carries out all commands, to the last.

        Args:
            prepare: makes a rank ready over its transport, and says how it obeys.

        Raises:
            WingspanError: a rank raised it.
            OSError: a rank cannot connect to rank 0.
        """
        place = self.group.place
        address = "" if place is None else place.meeting.rank_0_address
        peers = connect(self.transport, address or socket.gethostname())
        pipes = [Connection(peer.detach()) for peer in peers.values()]
        if self.transport.world.rank == 0:
            return MetRanks(self.transport, prepare(self.transport), pipes)
        # A launcher hands signals to every rank; what they mean is decided by rank 0, whose end is theirs.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        obey_all(prepare(self.transport), pipes[0], answers=False)
        return MetRanks(self.transport, None, pipes)


class MetRanks:
    """Rank 0's way to the others.

    Args:
        transport: the group.
        obey: what rank 0 itself does at a command; None on another rank, which has carried all out.
        pipes: to the others, or to rank 0.
    """

    def __init__(self, transport: Transport, obey: Obey | None, pipes: list[Connection]) -> None:
        self.size = transport.world.size
        self._obey = obey
        self._pipes = pipes

    @property
    def words(self) -> list[int]:
        """File descriptors, of which one can be read once a rank has ended."""
        return [pipe.fileno() for pipe in self._pipes]

    def check(self) -> None:
        """Between commands; raises `RunError` where a rank has ended: it sends nothing else."""
        if wait(self._pipes, timeout=0):
            raise RunError(_ENDED)

    def ask(self, command: object) -> object:
        """Have every rank carry out a command, and return this one's result.

        Raises:
            WingspanError: this rank raised it, or another has ended.
        """
        if self._obey is None:
            raise RunError("the ranks have ended, or another one commands them; ask on rank 0")
        try:
            for pipe in self._pipes:
                pipe.send(command)
        except OSError:
            raise RunError(_ENDED) from None
        return self._obey(command)

    def close(self) -> None:
        """Let the others end."""
        self._obey = None
        for pipe in self._pipes:
            with suppress(OSError):  # ended, or closed before
                pipe.send(END)
            pipe.close()
        self._pipes = []
