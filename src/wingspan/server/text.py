"""From new tokens to new text: pieces that later tokens cannot change, up to a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
"""What a tokenizer decodes a part of a character to."""


class TextStream:
    """The text of one answer, piece by piece.

    A piece is given out once it can neither become another character with the next token nor turn out to begin a stop
    string, which is cut off.

    Args:
        decode: text of ids.
        stops: strings that end the answer.
        keep_stop: leave the stop string in the text.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = (), *, keep_stop: bool = False
    ) -> None:
        self.stopped_by: str | None = None
        """The stop string that ended the answer."""
        self.length = 0
        """Characters given out so far."""
        self._decode = decode
        self._stops = tuple(stops)
        self._keep_stop = keep_stop
        self._ids: list[int] = []
        # The text of ids[begin:read] is given out; they are decoded again, for what they do to the next.
        self._begin = 0
        self._read = 0
        self._held = ""

    def push(self, token: int) -> str:
        """Take in a token; returns the text that is certain now."""
        if self.stopped_by is not None:
            raise RuntimeError("the text has ended")
        self._ids.append(token)
        return self._give(self._held + self._decoded())

    def end(self) -> str:
        """No token follows; returns the rest of the text."""
        if self.stopped_by is not None:
            return ""
        known = self._decode(self._ids[self._begin : self._read])
        rest = self._held + self._decode(self._ids[self._begin :])[len(known) :]
        text = self._give(rest)
        held, self._held = self._held, ""
        self.length += len(held)
        return text + held

    def _decoded(self) -> str:
        """The text that the newest tokens add; empty while a character is incomplete."""
        known = self._decode(self._ids[self._begin : self._read])
        text = self._decode(self._ids[self._begin :])
        if text.endswith(_UNFINISHED) or len(text) <= len(known):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _give(self, text: str) -> str:
        """As much of the text as is certain; holds the rest back."""
        found = [(at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.stopped_by = min(found)
            self._held = ""
            certain = text[: at + (len(self.stopped_by) if self._keep_stop else 0)]
        else:
            most = max((_overlap(text, stop) for stop in self._stops), default=0)
            certain, self._held = text[: len(text) - most], text[len(text) - most :]
        self.length += len(certain)
        return certain


def _overlap(text: str, stop: str) -> int:
    """The most characters at the end of a text with which the stop string begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
