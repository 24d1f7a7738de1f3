"""A connection on which JSON messages travel, one a line, between processes that do not trust each other yet."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

from wingspan.writing import json_text

_LONGEST_BYTES = 64 << 20
_LONGEST_FROM_STRANGERS_BYTES = 64 << 10
_SEND_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16


class NotOursError(Exception):
    """What came is no message of ours."""


class Line:
    """One end of a connection.

    Args:
        connection: made already; the line closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.known = False
        """Whether a first message of ours came; until then little is read."""
        self._rest = b""

    def fileno(self) -> int:
        """For `selectors`."""
        return self.connection.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; raises `OSError` where the other end has gone or reads nothing."""
        self.connection.settimeout(_SEND_SECONDS)
        self.connection.sendall(json_text(message).encode() + b"\n")

    def receive(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """What has come since; waits so long where nothing has.

        Raises:
            EOFError: the other end has gone.
            NotOursError: it speaks otherwise.
        """
        try:
            self.connection.settimeout(max(seconds, 0.001))
            came = self.connection.recv(_CHUNK_BYTES)
        except TimeoutError:
            return []
        except OSError:
            came = b""
        if not came:
            raise EOFError
        *lines, self._rest = (self._rest + came).split(b"\n")
        if len(self._rest) > (_LONGEST_BYTES if self.known else _LONGEST_FROM_STRANGERS_BYTES):
            raise NotOursError
        return [self._message(line) for line in lines]

    def finish(self, seconds: float) -> None:
        """Say nothing more, and read until the other end does the same: what it has not read yet is not lost then."""
        end = time.monotonic() + seconds
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_CHUNK_BYTES):
                    break
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def _message(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError:
            raise NotOursError from None
        if not isinstance(message, dict) or not (self.known or message.get("wingspan") == "meeting"):
            raise NotOursError
        self.known = True
        return message
