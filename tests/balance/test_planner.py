"""What the planner proposes, how it is weighed, and a planner process that dies or falls silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from wingspan.balance.decision import MoveCost, decide
from wingspan.balance.measured import Measured
from wingspan.balance.planner import Proposal, Question, propose
from wingspan.balance.planner_client import PlannerClient
from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.traffic.distinct import Choice

MEASURED = Measured(
    ranks=12, ranks_per_node=12, within_bytes_per_second=1e9, across_bytes_per_second=1e9, row_bytes=1000,
    seconds_per_row=1e-4, move_seconds=1e-4, dispatcher=DispatcherKind.FLAT,
)  # fmt: skip
CHOICE = Choice(8, 2)


def load(hot: int) -> np.ndarray:
    load_LE = np.full((2, 8), 10.0)
    load_LE[:, hot] = 100.0
    return load_LE


def question(mean_LE: np.ndarray, recent_LE: np.ndarray, present: Placement | None = None) -> Question:
    return Question(mean_LE[..., None], recent_LE, None, present or linear(2, 8, 12), CHOICE, MEASURED, 256)


def test_spare_ranks_take_replicas_of_the_hot_expert():
    proposal = propose(question(load(3), load(3)))
    assert proposal.placement.replicas_LE.tolist() == [[1, 1, 1, 5, 1, 1, 1, 1]] * 2
    assert proposal.fetched_LR.tolist() == [[0] * 8 + [1] * 4] * 2
    assert proposal.imbalance_present == pytest.approx(100 * 12 / 170)
    assert proposal.imbalance_predicted == pytest.approx(20 * 12 / 170)
    assert proposal.present_seconds > 3 * proposal.predicted_seconds


def test_a_load_that_has_gone_promises_nothing():
    """The mean still shows expert 3 hot, the last steps do not: the smaller gain counts."""
    proposal = propose(question(load(3), load(6)))
    assert proposal.present_seconds == pytest.approx(proposal.predicted_seconds)


def test_a_sample_of_company_counts_across_nodes():
    """Experts 0 and 4 are picked together: a planner that knows puts both, or replicas of them, on one node."""
    measured = Measured(
        ranks=8, ranks_per_node=4, within_bytes_per_second=1e12, across_bytes_per_second=1e6, row_bytes=1000,
        seconds_per_row=1e-9, move_seconds=1e-6, dispatcher=DispatcherKind.HIERARCHICAL,
    )  # fmt: skip
    pairs = np.array([[0, 4], [1, 5], [2, 6], [3, 7]], dtype=np.int16)
    sample_LXK = np.tile(pairs, (32, 1))[None]
    source_LEG = np.full((1, 8, 2), 16.0)
    asked = Question(source_LEG, source_LEG.sum(2), sample_LXK, linear(1, 8, 8), CHOICE, measured, 256)
    node_of = {int(e): r // 4 for r, e in enumerate(propose(asked).placement.slots_LRS[0, :, 0])}
    assert all(node_of[a] == node_of[b] for a, b in pairs.tolist())


def proposal(present: float, predicted: float, fetched: list[list[int]]) -> Proposal:
    return Proposal(linear(2, 3, 3), present, predicted, 2.0, 1.5, np.array(fetched))


@pytest.mark.parametrize(
    ("given", "forced", "verdict", "reason"),
    [
        (proposal(0.02, 0.01, [[1, 0, 0], [1, 2, 0]]), False, "migrate", "gain exceeds cost"),
        (proposal(0.0102, 0.01, [[1, 0, 0], [1, 2, 0]]), False, "stay", "cost exceeds gain"),
        (proposal(0.0102, 0.01, [[1, 0, 0], [1, 2, 0]]), True, "migrate", "asked for at this rhythm"),
        (proposal(0.01, 0.01, [[0, 0, 0], [0, 0, 0]]), True, "stay", "the present placement is the best one found"),
    ],
)  # fmt: skip
def test_gain_over_the_horizon_against_cost(given, forced, verdict, reason):
    """Three experts of 1000 bytes on the busiest ranks, one layer after another, at 10 kB/s: 0.3 s."""
    decision = decide(given, 7, 1.9, 100, MoveCost(10_000, "a guess"), 1000, forced=forced)
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert decision.gain_seconds == pytest.approx((given.present_seconds - given.predicted_seconds) * 100)
    assert decision.cost_seconds == pytest.approx(0.3 if decision.experts_moved else 0)
    assert decision.experts_moved == given.fetched_LR.sum()


@pytest.fixture
def planner() -> Iterator[PlannerClient]:
    made = PlannerClient(planning_seconds=60, silence_seconds=30)
    yield made
    made.close()
    assert not psutil.pid_exists(made.pid)


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask(planner: PlannerClient, asked: Question) -> object:
    planner.ask(asked)
    answers: list[object] = []
    wait_for(lambda: answers.append(planner.answer()) or answers[-1] is not None or planner.loss())
    return answers[-1]


def test_the_process_answers_as_the_function_does(planner):
    asked = question(load(3), load(3))
    start = time.monotonic()
    planner.ask(asked)
    assert time.monotonic() - start < 0.5
    assert planner.asked
    answer = None
    while answer is None:
        assert planner.loss() is None
        time.sleep(0.01)
        answer = planner.answer()
    assert answer.placement == propose(asked).placement
    assert not planner.asked
    assert ask(planner, asked).predicted_seconds == answer.predicted_seconds


def test_a_refusal_is_an_answer(planner):
    assert isinstance(ask(planner, question(load(3)[:, :5], load(3)[:, :5])), InputError)


def test_a_killed_process_is_named_and_replaced(planner):
    first = planner.pid
    os.kill(first, signal.SIGKILL)
    wait_for(planner.loss)
    assert planner.loss() == f"planner process {first} was killed by signal SIGKILL"
    planner.restart()
    assert planner.pid != first
    assert not planner.asked
    assert isinstance(ask(planner, question(load(3), load(3))), Proposal)


def test_a_silent_process_is_noticed(planner):
    assert isinstance(ask(planner, question(load(3), load(3))), Proposal)
    os.kill(planner.pid, signal.SIGSTOP)
    planner._silence_seconds = 0.2
    planner.ask(question(load(3), load(3)))
    wait_for(planner.loss)
    assert "gave no sign of life for 0.2 s" in planner.loss()


def test_the_process_ends_with_its_parent(tmp_path: Path):
    told = tmp_path / "pid"
    parent = os.fork()
    if parent == 0:
        made = PlannerClient(60, 30)
        (tmp_path / "written").write_text(str(made.pid))
        (tmp_path / "written").rename(told)
        time.sleep(60)
        os._exit(0)
    wait_for(told.exists)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_for(lambda: not psutil.pid_exists(int(told.read_text())), seconds=20)
