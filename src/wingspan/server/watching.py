"""Who is told what the engine does: metrics, the live page."""

from __future__ import annotations

from wingspan.errors import WingspanError
from wingspan.runtime.generation.ledger import StepResult
from wingspan.runtime.measuring.figures import GroupFigures
from wingspan.server.answers import Answer


class Watcher:
    """Is told what happens, in the event loop's thread; does nothing by itself."""

    def stepped(self, result: StepResult, seconds: float) -> None:
        """A step gave this, and took so long."""

    def begun(self, answer: Answer) -> None:
        """An answer got a place."""

    def token(self, answer: Answer, now: float) -> None:
        """An answer gets a token."""

    def ended(self, answer: Answer, reason: str, now: float) -> None:
        """An answer has ended, or its caller left."""

    def failed(self, error: WingspanError) -> None:
        """The engine has ended before its time."""

    def wants_figures(self) -> bool:
        """Whether to be told what every rank did since that was last said; asked between steps."""
        return False

    def figures(self, figures: GroupFigures, seconds: float) -> None:
        """What every rank did; to find that out held the steps up for so long."""


class Watchers(Watcher):
    """Several, told in order."""

    def __init__(self, *several: Watcher) -> None:
        self._several = several

    def stepped(self, result: StepResult, seconds: float) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.stepped(result, seconds)

    def begun(self, answer: Answer) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.begun(answer)

    def token(self, answer: Answer, now: float) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.token(answer, now)

    def ended(self, answer: Answer, reason: str, now: float) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.ended(answer, reason, now)

    def failed(self, error: WingspanError) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.failed(error)

    def wants_figures(self) -> bool:
        """See `Watcher`."""
        return any(one.wants_figures() for one in self._several)

    def figures(self, figures: GroupFigures, seconds: float) -> None:
        """See `Watcher`."""
        for one in self._several:
            one.figures(figures, seconds)
