"""A transfer under way."""

from __future__ import annotations

from typing import Protocol


class WorkHandle(Protocol):
    """A transfer under way."""

    def wait(self) -> object:
        """Return when the received buffer is complete and the sent one may be written again; what, means nothing."""
