"""Progress of long work on standard error: a line that changes on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from wingspan.cli.console import Console

_LOG_SECONDS = 10.0
_TERMINAL_SECONDS = 0.2


class Counting:
    """Shows what is counted, no more often than a reader needs; ends with the work, however that ends."""

    def __init__(self, doing: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status(doing) if self._console.is_terminal else None
        self._doing = doing
        self._shown = time.monotonic()

    def __enter__(self) -> Counting:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def show(self, what: str, done: int, of: int) -> None:
        """So many of so many are done of this."""
        now = time.monotonic()
        if now - self._shown < (_TERMINAL_SECONDS if self._status else _LOG_SECONDS):
            return
        self._shown = now
        text = f"{self._doing} {what}: {done:,} of {of:,}"
        if self._status:
            self._status.update(text)
        else:
            self._console.print(text, soft_wrap=True)
