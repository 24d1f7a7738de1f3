"""The planner without its process: it answers by the next look, and from the loads alone, not this machine's speed."""

from __future__ import annotations

from dataclasses import replace

from wingspan.balance.planner import Proposal, Question, propose
from wingspan.errors import WingspanError


class InlinePlanner:
    """Stands for `planner_client.PlannerClient`."""

    restarts = 0

    def __init__(self, planning_seconds: float, silence_seconds: float) -> None:
        self._proposal: Proposal | None = None

    @property
    def asked(self) -> bool:
        return self._proposal is not None

    def ask(self, question: Question) -> None:
        fast = replace(
            question.measured,
            within_bytes_per_second=1e15,
            across_bytes_per_second=1e15,
            move_seconds=0.0,
            seconds_per_row=1e-3,
        )
        self._proposal = propose(replace(question, measured=fast))

    def answer(self) -> Proposal | WingspanError | None:
        answer, self._proposal = self._proposal, None
        return answer

    def loss(self) -> str | None:
        return None

    def close(self) -> None:
        return
