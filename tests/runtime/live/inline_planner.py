"""The planner without its process: answers by the next beat, however fast the steps are."""

from __future__ import annotations

from wingspan.errors import WingspanError
from wingspan.runtime.live.planner import Proposal, Question, propose


class InlinePlanner:
    """Stands for `planner_client.Planner`."""

    restarts = 0

    def __init__(self, planning_seconds: float, silence_seconds: float) -> None:
        self._proposal: Proposal | None = None

    @property
    def asked(self) -> bool:
        return self._proposal is not None

    def ask(self, question: Question) -> None:
        self._proposal = propose(question)

    def answer(self) -> Proposal | WingspanError | None:
        answer, self._proposal = self._proposal, None
        return answer

    def loss(self) -> str | None:
        return None

    def close(self) -> None:
        return
