"""How the other ranks connect to rank 0, and nobody else: at one interface, with a token that only the group knows."""

from __future__ import annotations

import ipaddress
import os
import secrets
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wingspan.runtime.transport.transport import Transport

CONNECT_SECONDS = 60.0
"""All must have connected by then."""

_LOOPBACK = "127.0.0.1"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TOKEN_BYTES = 32
_RANK = struct.Struct("!i")
_GREETING_BYTES = _TOKEN_BYTES + _RANK.size
_STRANGERS = 64
"""So many that say nothing may wait beside the group's own ranks; one more sends the first of them away."""


@dataclass(frozen=True)
class _Place:
    """Where rank 0 awaits the others, and what they show there."""

    host: str
    port: int
    token: bytes

    def greeting(self, rank: int) -> bytes:
        """What that rank says first."""
        return self.token + _RANK.pack(rank)


def connect(transport: Transport, address: str) -> dict[int, socket.socket]:
    """Collective: on rank 0 a connection to each other rank, by rank; elsewhere the one to rank 0.

    Args:
        transport: the group.
        address: rank 0's host, as the others reach it.

    Raises:
        OSError: it does not come about in `CONNECT_SECONDS`.
    """
    networks = transport.gather(_network())
    if networks is None:
        place: _Place = transport.broadcast(None)  # type: ignore[assignment]
        connection = socket.create_connection((place.host, place.port), CONNECT_SECONDS)
        connection.settimeout(None)
        connection.sendall(place.greeting(transport.world.rank))
        return {0: connection}
    host = _LOOPBACK if len(set(networks)) == 1 else address
    with listen(host) as listener:
        place = _Place(host, listener.getsockname()[1], secrets.token_bytes(_TOKEN_BYTES))
        transport.broadcast(place)
        return _Reception(listener, place, transport.world.size).peers()


def listen(host: str) -> socket.socket:
    """A listening socket at the interface of that address.

    At all interfaces where this machine does not have the address (it is translated on the way), or takes the name for
    loopback as others cannot: they reach this machine as they have before.
    """
    with suppress(OSError):
        for family, _, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            if host == _LOOPBACK or not ipaddress.ip_address(place[0]).is_loopback:
                return socket.create_server((str(place[0]), 0), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _network() -> str:
    """What processes that reach each other over loopback have in common: the machine, and its network namespace."""
    if sys.platform != "linux":
        return socket.gethostname()
    return _BOOT_ID.read_text() + os.readlink("/proc/self/ns/net")


class _Reception:
    """Rank 0 as the others come in. No more is read of anybody than a greeting, and nobody is waited for alone."""

    def __init__(self, listener: socket.socket, place: _Place, size: int) -> None:
        self._listener = listener
        self._expected = {place.greeting(rank): rank for rank in range(1, size)}
        self._said: dict[socket.socket, bytes] = {}
        """Who came in, first ones first, and has not said a whole greeting yet."""
        self._peers: dict[int, socket.socket] = {}

    def peers(self) -> dict[int, socket.socket]:
        """The connections of all other ranks, by rank.

        Raises:
            TimeoutError: they are not all there in time.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        self._listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while self._expected:
                if time.monotonic() > deadline:
                    missing = ", ".join(str(rank) for rank in sorted(self._expected.values()))
                    raise TimeoutError(f"rank {missing} did not connect in {CONNECT_SECONDS:.0f} s")
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if key.fileobj is self._listener:
                        self._let_in(selector)
                    elif key.fileobj in self._said:
                        self._hear(key.fileobj, selector)  # type: ignore[arg-type]
        for stranger in self._said:
            stranger.close()
        return self._peers

    def _let_in(self, selector: selectors.BaseSelector) -> None:
        with suppress(OSError):  # gone again
            guest, _ = self._listener.accept()
            guest.setblocking(False)
            self._said[guest] = b""
            selector.register(guest, selectors.EVENT_READ)
        if len(self._said) > len(self._expected) + _STRANGERS:
            first = next(iter(self._said))
            self._send_away(first, selector)

    def _hear(self, guest: socket.socket, selector: selectors.BaseSelector) -> None:
        """Take in what it says; a rank's greeting makes it a peer, anything else ends the connection."""
        heard = b""
        with suppress(OSError):
            heard = guest.recv(_GREETING_BYTES - len(self._said[guest]))
        self._said[guest] += heard
        rank = self._expected.pop(self._said[guest], None)
        if rank is not None:
            selector.unregister(guest)
            del self._said[guest]
            guest.setblocking(True)
            self._peers[rank] = guest
        elif not heard or len(self._said[guest]) == _GREETING_BYTES:
            self._send_away(guest, selector)

    def _send_away(self, guest: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.unregister(guest)
        del self._said[guest]
        guest.close()
