"""What only rank 0 does: keep the history, ask the planner, decide, and write the log. Never waits for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wingspan.balance.decision import MoveCost, decide
from wingspan.balance.history import History
from wingspan.balance.load_report import LoadReport
from wingspan.balance.measured import LinkRates, Measured
from wingspan.balance.orders import MigrationOutcome, Order
from wingspan.balance.planner import Proposal, Question
from wingspan.balance.planner_client import PlannerClient
from wingspan.balance.settings import Rebalance
from wingspan.errors import WingspanError
from wingspan.schedule.rebalance_result import Decision, Migrated, PlannerLost, RebalanceEvent, Stopped
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.traffic.distinct import Choice

_MOST_RESTARTS = 5
_MOST_FAILED_MIGRATIONS = 3
_LINK_SHARE = 0.1
"""The part that moves may take of what a link carries in a step."""
_LEAST_STEP_BYTES = 1 << 16


@dataclass(frozen=True)
class Sizes:
    """What moves.

    Args:
        row_bytes: one token's hidden state as it travels.
        expert_bytes: one expert's weights.
        choice: what each token picks.
        dispatcher: how rows travel.
    """

    row_bytes: int
    expert_bytes: int
    choice: Choice
    dispatcher: DispatcherKind


class BalanceController:
    """Rank 0's part.

    Args:
        settings: see `Rebalance`.
        ranks: how many, on nodes of `ranks_per_node`.
        ranks_per_node: the same on every node.
        rates: measured before the first step.
        sizes: of rows and experts.
    """

    def __init__(
        self, settings: Rebalance, ranks: int, ranks_per_node: int, rates: LinkRates, sizes: Sizes
    ) -> None:
        self.events: list[RebalanceEvent] = []
        self._settings = settings
        self._ranks = ranks
        self._ranks_per_node = ranks_per_node
        self._rates = rates
        self._sizes = sizes
        self._history = History(ranks // ranks_per_node, settings.half_life_steps)
        self._planner = PlannerClient(settings.planning_seconds, settings.silence_seconds)
        self._cost = MoveCost(rates.weights, "calibration before the first step")
        self._moved_bytes = self._moved_seconds = 0.0
        self._migrations = self._failed = 0
        self._next_question_step = settings.every_steps or 0
        self._decision: Decision | None = None
        self._step_seconds_before = self._upper_seconds_before = 0.0
        self._unmeasured: Migrated | None = None
        self._stopped = False

    @property
    def asked(self) -> bool:
        """Whether the planner is at work."""
        return not self._stopped and self._planner.asked

    def beat(
        self, step: int, reports: Sequence[LoadReport], placement: Placement, horizon: int
    ) -> Order | None:
        """Take in the reports of all ranks; returns what to do, if anything."""
        self._history.add(reports)
        self._measure_outcome()
        order = self.look(step, horizon)
        if order is None and not (self._stopped or self._planner.asked) and step >= self._next_question_step:
            self._ask(step, placement, horizon)
        return order

    def look(self, step: int, horizon: int) -> Order | None:
        """Whether the planner has an answer, and then what to do."""
        if self._stopped or self._lost_planner(step):
            return None
        answer = self._planner.answer()
        if isinstance(answer, WingspanError):
            self._stop(step, f"the planner refused: {answer}")
            return None
        return None if answer is None else self._decide(answer, step, horizon)

    def migrated(self, step: int, reports: Sequence[LoadReport], outcome: MigrationOutcome) -> None:
        """Write down how an order went; `reports` cover its steps only."""
        self._history.add(reports)
        self.events.extend(outcome.rollbacks)
        steps = step - outcome.first_step
        slower = max(0.0, self._history.step_seconds - self._upper_seconds_before) * steps
        # The rank that came last to the ranks' meetings waited for nobody in them: its time is what they took.
        added = min(r.busy_seconds for r in reports) + slower
        decision = self._decision
        if outcome.layers and decision is not None:
            self._unmeasured = Migrated(
                first_step=outcome.first_step,
                last_step=step,
                layers=outcome.layers,
                layers_rolled_back=len(outcome.rollbacks),
                experts_moved=outcome.experts_moved,
                moved_bytes=outcome.experts_moved * self._sizes.expert_bytes,
                added_seconds=added,
                longest_step_seconds=self._history.longest_seconds,
                imbalance_before=decision.imbalance_before,
                imbalance_after=None,
                imbalance_predicted=decision.imbalance_predicted,
                step_seconds_before=self._step_seconds_before,
                step_seconds_after=None,
            )
            self._learn_cost(outcome, added)
        self._failed = self._failed + 1 if outcome.rollbacks else 0
        if self._failed == _MOST_FAILED_MIGRATIONS:
            self._stop(step, f"{self._failed} migrations in a row had to be rolled back")

    def finish(self, step: int, reports: Sequence[LoadReport], unfinished_layer: int | None) -> None:
        """The run is over."""
        self._history.add(reports)
        self._measure_outcome()
        if unfinished_layer is not None:
            self._stop(
                step, f"the run ended while layer {unfinished_layer} was under way; it kept its placement"
            )
        if not self._stopped:
            self._planner.close()

    def _ask(self, step: int, placement: Placement, horizon: int) -> None:
        self._planner.ask(
            Question(
                self._history.source_LEG,
                self._history.window_load_LE,
                self._history.sample_LXK,
                placement,
                self._sizes.choice,
                self._measured(),
                horizon,
            )
        )
        self._next_question_step = step + (self._settings.every_steps or 1)

    def _measured(self) -> Measured:
        return Measured(
            ranks=self._ranks,
            ranks_per_node=self._ranks_per_node,
            within_bytes_per_second=self._rates.within,
            across_bytes_per_second=self._rates.across,
            row_bytes=self._sizes.row_bytes,
            seconds_per_row=self._history.seconds_per_row,
            move_seconds=self._sizes.expert_bytes / self._cost.bytes_per_second,
            dispatcher=self._sizes.dispatcher,
        )

    def _decide(self, proposal: Proposal, step: int, horizon: int) -> Order | None:
        decision = decide(
            proposal,
            step,
            self._history.imbalance,
            horizon,
            self._cost,
            self._sizes.expert_bytes,
            forced=self._settings.every_steps is not None,
        )
        self.events.append(decision)
        if decision.verdict == "stay":
            return None
        self._decision = decision
        self._step_seconds_before = self._history.step_seconds
        self._upper_seconds_before = self._history.upper_seconds
        per_step = int(_LINK_SHARE * self._rates.weights * self._history.step_seconds)
        return Order(
            proposal.placement,
            self._settings.step_bytes or max(_LEAST_STEP_BYTES, per_step),
            self._settings.arrival_seconds,
        )

    def _measure_outcome(self) -> None:
        """The first reports after a migration say what came of it."""
        if self._unmeasured is not None:
            measured = {
                "imbalance_after": self._history.imbalance,
                "step_seconds_after": self._history.step_seconds,
            }
            self.events.append(self._unmeasured.model_copy(update=measured))
            self._unmeasured = None

    def _learn_cost(self, outcome: MigrationOutcome, added_seconds: float) -> None:
        self._migrations += 1
        self._moved_bytes += outcome.busiest_experts * self._sizes.expert_bytes
        self._moved_seconds += added_seconds
        times = "migration" if self._migrations == 1 else f"{self._migrations} migrations"
        if self._moved_bytes and self._moved_seconds:
            self._cost = MoveCost(self._moved_bytes / self._moved_seconds, f"the last {times}")

    def _lost_planner(self, step: int) -> bool:
        """Notice a dead or silent planner and replace it; whether balancing has to stop."""
        reason = self._planner.loss()
        if reason is None:
            return False
        if self._planner.restarts == _MOST_RESTARTS:
            self._stop(step, f"{reason}; it was restarted {_MOST_RESTARTS} times already")
            return True
        self._planner.restart()
        self._next_question_step = min(self._next_question_step, step)
        self.events.append(PlannerLost(step=step, reason=reason, restarts=self._planner.restarts))
        return False

    def _stop(self, step: int, reason: str) -> None:
        self._stopped = True
        self._planner.close()
        self.events.append(Stopped(step=step, reason=reason))
