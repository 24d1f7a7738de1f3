"""Rank 0 of a meeting: it listens, knows who came, and decides for all."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wingspan.errors import InputError, RunError, WingspanError
from wingspan.runtime.launch.meeting.address import MeetingPoint
from wingspan.runtime.launch.meeting.line import Line, NotOursError
from wingspan.runtime.launch.meeting.protocol import Patience, failure, store_of, this_process
from wingspan.runtime.ranks.world import World, named

_FAREWELL_SECONDS = 2.0
_TELL_AGAIN_SECONDS = 30.0
_LINGER_SECONDS = 5.0
"""A rank 0 that cannot go on waits this long for the others, to tell them why."""


class Host:
    """Rank 0's end; see `Meeting`.

    Args:
        world: its place.
        point: where the ranks meet.
        listener: a socket that listens there.
        patience: for each rank that is late.
    """

    def __init__(
        self, world: World, point: MeetingPoint, listener: socket.socket, patience: Patience
    ) -> None:
        self.own_address = self.rank_0_address = "127.0.0.1"
        with suppress(OSError):
            self.own_address = self.rank_0_address = str(
                socket.getaddrinfo(point.address, point.port, type=socket.SOCK_STREAM)[0][4][0]
            )
        self._world = world
        self._point = point
        self._listener = listener
        self._patience = patience
        self._lines: dict[int, Line] = {}
        self._who = {0: this_process()}
        self._values: dict[int, deque[Any]] = {rank: deque() for rank in range(1, world.size)}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._waiting = ""
        self._failed: dict[str, Any] | None = None

    @property
    def port(self) -> int:
        """Where rank 0 listens."""
        return int(self._listener.getsockname()[1])

    def agree(self, value: Any, rule: Callable[[list[Any]], Any]) -> Any:
        """See `Meeting`."""
        self._wait_for_values()
        values = [value, *(self._values[rank].popleft() for rank in range(1, self._world.size))]
        try:
            verdict = rule(values)
        except WingspanError as error:
            raise self._end(error) from None
        self._tell_all({"verdict": verdict})
        return verdict

    def fail(self, error: WingspanError) -> None:
        """See `Meeting`."""
        self._end(type(error)(f"rank 0: {error}"))

    def store(self) -> Any:
        """Collective: torch.distributed's store, on the same port; the meeting is over."""
        self._selector.close()
        port: int = self._listener.getsockname()[1]
        store = store_of(self._world, "127.0.0.1", port, self._listener)
        for line in self._lines.values():
            line.close()
        return store

    def _wait_for_values(self) -> None:
        start = time.monotonic()
        word = start + self._patience.word_seconds
        self._waiting = ""
        while missing := [rank for rank, values in self._values.items() if not values]:
            now = time.monotonic()
            if now > start + self._patience.limit_seconds:
                raise self._end(
                    RunError(
                        f"{self._waiting_for(missing)}: gave up after {self._patience.limit_seconds:g} s; start it, or "
                        "let the others wait longer"
                    )
                )
            if now > word:
                self._waiting = self._waiting_for(missing)
                word = now + _TELL_AGAIN_SECONDS
                self._patience.tell(self._waiting)
                self._tell_all({"waiting": self._waiting})
            self._hear(min(word, start + self._patience.limit_seconds) - now)

    def _waiting_for(self, missing: list[int]) -> str:
        absent = [rank for rank in missing if rank not in self._lines]
        text = f"waiting for {named(absent or missing)} of {self._world.size} at {self._point}"
        if not absent:
            return f"{text} (connected, not ready yet)"
        return f"{text} ({self._point.remark})" if self._point.remark else text

    def _hear(self, seconds: float) -> None:
        """Take what comes within this time."""
        for key, _ in self._selector.select(max(0.0, seconds) + 0.01):
            if key.fileobj is self._listener:
                self._admit()
            else:
                self._listen_to(key.fileobj)  # type: ignore[arg-type]

    def _admit(self) -> None:
        with suppress(OSError):
            line = Line(self._listener.accept()[0])
            self._selector.register(line, selectors.EVENT_READ)

    def _listen_to(self, line: Line) -> None:
        rank = next((rank for rank, known in self._lines.items() if known is line), None)
        try:
            messages = line.receive()
        except EOFError:
            self._drop(line)
            if rank is not None and self._failed is None:
                del self._lines[rank]
                raise self._end(RunError(f"rank {rank} ended before the run began; it says why")) from None
            return
        except NotOursError:
            self._drop(line)
            return
        for message in messages:
            if rank is None:
                rank = self._greet(line, message)
            elif "failed" in message:
                raise self._end(_error(message))
            else:
                self._values[rank].append(message["value"])

    def _greet(self, line: Line, message: dict[str, Any]) -> int | None:
        """Let a rank in, if it is one of ours; returns its number."""
        if message.get("launch") != self._point.launch:
            refusal = InputError(
                f"port {self._point.port} of {self._point.address} is another launch's; {_ANOTHER}"
            )
            with suppress(OSError):
                line.send(failure(refusal))
                line.connection.shutdown(socket.SHUT_WR)
            return None
        rank, size, who = message.get("rank"), message.get("size"), str(message.get("who"))
        if not (isinstance(rank, int) and isinstance(size, int) and 0 <= rank < size):
            return None
        wrong = ""
        if size != self._world.size:
            wrong = (
                f"the number of ranks is {self._world.size} on rank 0 and {size} on rank {rank} ({who}); give all the "
                "same"
            )
        elif rank in self._who:
            wrong = (
                f"two processes are rank {rank}: {self._who[rank]} and {who}; give each a rank of its own, and each "
                "launch a MASTER_PORT of its own"
            )
        if wrong:
            with suppress(OSError):
                line.send(failure(InputError(wrong)))
                line.finish(_FAREWELL_SECONDS)
            raise self._end(InputError(wrong))
        self._lines[rank], self._who[rank] = line, who
        for words in ({"wingspan": "meeting"}, self._failed, {"waiting": self._waiting}):
            if words and words.get("waiting") != "":
                with suppress(OSError):
                    line.send(words)
        return rank

    def _end(self, error: WingspanError) -> WingspanError:
        """Tell all, those too that come a little later, then have it raised."""
        if self._failed is not None:
            return error
        self._failed = failure(error)
        self._tell_all(self._failed)
        if isinstance(error, InputError):
            end = time.monotonic() + min(_LINGER_SECONDS, self._patience.limit_seconds)
            while len(self._who) < self._world.size and time.monotonic() < end:
                with suppress(WingspanError):  # another one's: this one is the first
                    self._hear(0.1)
        end = time.monotonic() + _FAREWELL_SECONDS
        for line in self._lines.values():
            line.finish(max(0.05, end - time.monotonic()))
        return error

    def _tell_all(self, message: dict[str, Any]) -> None:
        for line in self._lines.values():
            with suppress(OSError):  # it has ended, which is noticed when it is listened to
                line.send(message)

    def _drop(self, line: Line) -> None:
        self._selector.unregister(line)
        line.close()


_ANOTHER = "set MASTER_PORT to a free one"


def listen(point: MeetingPoint) -> socket.socket:
    """Rank 0's socket at a meeting point; on the loopback alone where no rank is on another host.

    Raises:
        InputError: the port is in use.
    """
    try:
        if point.only_here:
            return socket.create_server(("127.0.0.1", point.port), backlog=1024)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", point.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        return socket.create_server(("", point.port), backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {point.port} on {point.address} is in use; {_ANOTHER}") from None
        raise InputError(f"rank 0 cannot listen on port {point.port}: {error.strerror}; {_ANOTHER}") from None


def _error(message: dict[str, Any]) -> WingspanError:
    kind = InputError if message["exit_code"] == InputError.exit_code else RunError
    return kind(str(message["failed"]))
