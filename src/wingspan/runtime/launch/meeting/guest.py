"""Every rank of a meeting but rank 0: it looks for rank 0 until it answers, then goes by what it says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wingspan.errors import RunError, WingspanError
from wingspan.runtime.launch.meeting.address import MeetingPoint
from wingspan.runtime.launch.meeting.line import Line, NotOursError
from wingspan.runtime.launch.meeting.protocol import Patience, failure, hello, store_of, unwrapped
from wingspan.runtime.ranks.world import World

_FAREWELL_SECONDS = 2.0
_TRY_AGAIN_SECONDS = 0.2
_CONNECT_SECONDS = 3.0

Where = Callable[[], tuple[str, int] | None]
"""Rank 0's address and port, or None as long as nobody knows them."""


class Guest:
    """A rank's end; see `Meeting`.

    Args:
        world: its place.
        point: where the ranks meet.
        where: rank 0 is; None: at the point.
        patience: how long to look for rank 0.

    Raises:
        RunError: rank 0 did not answer in time.
        InputError: it did, and refused this rank.
    """

    def __init__(
        self, world: World, point: MeetingPoint, patience: Patience, where: Where | None = None
    ) -> None:
        self._world = world
        self._point = point
        self._patience = patience
        self._deadline = time.monotonic() + patience.limit_seconds
        self._word = time.monotonic() + patience.word_seconds
        self._where: Where = where or (lambda: (point.address, point.port))
        self._unread: list[dict[str, Any]] = []
        self._line = self._find()
        self.own_address = _plain(self._line.connection.getsockname()[0])
        self.rank_0_address = _plain(self._line.connection.getpeername()[0])

    @property
    def port(self) -> int:
        """Where rank 0 listens."""
        return int(self._line.connection.getpeername()[1])

    def agree(self, value: Any, rule: Callable[[list[Any]], Any]) -> Any:  # noqa: ARG002 - rank 0 applies it
        """See `Meeting`."""
        self._deadline = time.monotonic() + self._patience.limit_seconds
        with suppress(OSError):  # rank 0 has ended; it may have said why
            self._line.send({"value": value})
        waiting = f"waiting for rank 0 of {self._world.size} at {self._point} (connected, not ready yet)"
        while time.monotonic() < self._deadline:
            for message in self._receive():
                if "waiting" not in message:
                    return unwrapped(message)
                waiting = message["waiting"]
                self._patience.tell(waiting)
        error = RunError(f"{waiting}: gave up after {self._patience.limit_seconds:g} s")
        with suppress(OSError):
            self._line.send(failure(error))
        self._line.finish(_FAREWELL_SECONDS)
        raise error

    def fail(self, error: WingspanError) -> None:
        """See `Meeting`."""
        with suppress(OSError):
            self._line.send(failure(type(error)(f"rank {self._world.rank}: {error}")))
        self._line.finish(_FAREWELL_SECONDS)

    def store(self) -> Any:
        """Collective: torch.distributed's store, which rank 0 opens on the same port; the meeting is over."""
        peer = self._line.connection.getpeername()
        store = store_of(self._world, peer[0], peer[1], None)
        self._line.close()
        return store

    def _receive(self) -> list[dict[str, Any]]:
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        try:
            return self._line.receive(self._deadline - time.monotonic())
        except (EOFError, NotOursError):
            raise RunError("rank 0 ended before the run began; it says why") from None

    def _find(self) -> Line:
        reason = "nobody listens there"
        while True:
            found, reason = self._try(reason)
            if found is not None:
                return found
            if time.monotonic() > self._deadline:
                raise RunError(
                    f"{self._waiting(reason)}: gave up after {self._patience.limit_seconds:g} s; start it, or set "
                    "MASTER_ADDR and MASTER_PORT to where it is"
                )
            self._say(reason)
            time.sleep(_TRY_AGAIN_SECONDS)

    def _try(self, before: str) -> tuple[Line | None, str]:
        """A line to rank 0 that greeted, or why there is none."""
        at = self._where()
        if at is None:
            return None, "it has not said where it is"
        try:
            line = Line(socket.create_connection(at, _CONNECT_SECONDS))
        except socket.gaierror:
            return None, f"{socket.gethostname()} knows no host of that name"
        except OSError as error:
            return None, _why(at[0], error) or before
        if line.connection.getsockname() == line.connection.getpeername():
            # A port from which this side may also connect: it has met itself, and must not keep rank 0's port.
            line.close()
            return None, before
        with suppress(OSError, EOFError, NotOursError):
            line.send(hello(self._world, self._point))
            if (greeting := self._first_word(line)) is not None:
                if "failed" in greeting:
                    unwrapped(greeting)
                return line, ""
        line.close()
        return None, "what answers there is not rank 0 of this launch"

    def _first_word(self, line: Line) -> dict[str, Any] | None:
        """What the other end says first; it stays connected in the meantime, as rank 0 may be busy."""
        while time.monotonic() < self._deadline:
            if messages := line.receive(0.5):
                self._unread = messages[1:]
                return messages[0]
            self._say("what answers there says nothing")
        return None

    def _say(self, reason: str) -> None:
        if time.monotonic() > self._word:
            self._word = time.monotonic() + 30.0
            self._patience.tell(self._waiting(reason))

    def _waiting(self, reason: str) -> str:
        remark = f"; {self._point.remark}" if self._point.remark else ""
        return f"waiting for rank 0 of {self._world.size} at {self._point} ({reason}{remark})"


def _plain(address: str) -> str:
    """An IPv4 address that came in IPv6's notation as itself."""
    return address.removeprefix("::ffff:")


def _why(address: str, error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    with suppress(OSError):
        number = socket.gethostbyname(address)
        if number.startswith("127.") and number != address:
            return f"{address} is {number} here, this host itself: {reason.lower()}"
    return reason[0].lower() + reason[1:]
