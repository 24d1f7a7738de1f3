"""Ranks that a launcher started learn that one of them ended, also where neither launcher nor transport tells them.

gloo can miss that a connection broke with rows on it, and then waits for as long as it would for a slow peer; Slurm
lets the other ranks of a dead one be. So each rank holds a connection to rank 0 on which nothing is said: the kernel
closes it when a process ends, in whatever way, and rank 0 tells the others whom they lost.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from concurrent.futures import Future
from contextlib import suppress

from wingspan.errors import LostPeerError, RunError
from wingspan.runtime.launch.reception import connect
from wingspan.runtime.transport.transport import Transport

_GRACE_SECONDS = 3.0
"""A rank that has lost another finds out and ends in good order; after this long it is ended."""

_NAMING_SECONDS = 1.0
"""A rank whose transport noticed first waits this long to hear whom it lost."""

_MESSAGE_TIMEVAL = struct.pack("ll", 5, 0)
"""Longest for one number that has begun: seconds and microseconds, as the system takes them (socket(7))."""

_STANDARD_ERROR = 2

_NUMBER = struct.Struct("!i")
_FAREWELL = -1


class PeerMonitor:
    """While inside, this process ends soon after any other rank's did, unless that left in good order.

    Collective.

    Args:
        transport: the group.
        address: rank 0's host, as the others reach it.

    Raises:
        RunError: the ranks cannot connect to rank 0.
    """

    def __init__(self, transport: Transport, address: str) -> None:
        self._rank = transport.world.rank
        self._lost: Future[int] = Future()
        self._left = threading.Event()
        try:
            self._peers = connect(transport, address)
        except OSError as error:
            raise RunError(f"rank {self._rank}: no connection with rank 0 on {address}: {error}") from None
        for connection in self._peers.values():
            for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, direction, _MESSAGE_TIMEVAL)

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, name="peer-monitor", daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Say farewell after good work; after an error the end of the process says all.

        Raises:
            LostPeerError: in place of another of its kind, with the lost rank's number.
        """
        if error is None:
            self._left.set()
            self._tell(_FAREWELL)
        elif isinstance(error, LostPeerError):
            with suppress(TimeoutError):
                raise self._error(self._lost.result(_NAMING_SECONDS)) from error

    def _watch(self) -> None:
        """Until all peers have said farewell, or one is lost."""
        with selectors.DefaultSelector() as selector:
            for peer, connection in self._peers.items():
                selector.register(connection, selectors.EVENT_READ, peer)
            while selector.get_map():
                for key, _ in selector.select():
                    said = _receive(self._peers[key.data], otherwise=key.data)
                    if said != _FAREWELL:
                        self._end(said)
                        return
                    selector.unregister(key.fileobj)

    def _end(self, lost: int) -> None:
        if self._left.is_set():
            return
        if self._rank == 0:
            self._tell(lost)
        self._lost.set_result(lost)
        if not self._left.wait(_GRACE_SECONDS):
            # The main thread is in a call that nothing gets it out of.
            os.write(_STANDARD_ERROR, f"wingspan: {self._error(lost)}\n".encode())
            os._exit(RunError.exit_code)

    def _tell(self, number: int) -> None:
        for connection in self._peers.values():
            with suppress(OSError):  # that process has ended
                connection.sendall(_NUMBER.pack(number))

    def _error(self, lost: int) -> LostPeerError:
        return LostPeerError(f"rank {self._rank} lost contact with its peers: rank {lost} ended")


def _receive(connection: socket.socket, otherwise: int) -> int:
    """A number from a peer; `otherwise` where it ended without one."""
    try:
        said = connection.recv(_NUMBER.size, socket.MSG_WAITALL)
    except OSError:
        said = b""
    return int(_NUMBER.unpack(said)[0]) if len(said) == _NUMBER.size else otherwise
