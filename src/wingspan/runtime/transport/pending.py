"""A transfer under way."""

from __future__ import annotations

from typing import Protocol


class Pending(Protocol):
    """A transfer under way."""

    def wait(self) -> float | None:
        """Return when the received buffer is complete and the sent one may be written again.

        Returns:
            When it ended, on the clock of `time.monotonic`; None where only the end of the wait is known.
        """
