"""`wingspan run --rebalance`."""

from __future__ import annotations

import json

import pytest

from tests.balance.inline_planner import InlinePlanner
from tests.cli.command import TINY
from wingspan.balance import controller
from wingspan.balance.settings import Rebalance, parse_rebalance
from wingspan.errors import InputError
from wingspan.report.rebalance import lines
from wingspan.schedule.rebalance_result import Decision, Migrated, PlannerLost, Rollback, Stopped


def test_json_has_the_log(wingspan, monkeypatch):
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)
    done = wingspan(
        "run", TINY, "--ranks", "9", "--dtype", "float32", "--prompt", "def f(", "--prompt", "import",
        "--max-new-tokens", "16", "--rebalance", "every 4", "--check", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["check"]["tokens_equal"]
    decisions = [e for e in result["rebalance"] if e["kind"] == "decision"]
    assert decisions
    assert {"imbalance_before", "gain_seconds", "cost_seconds", "verdict"} <= decisions[0].keys()
    assert len(result["report"]["memory_bytes"]["staging"]) == 9


def test_terminal_says_when_a_run_was_too_short(wingspan):
    done = wingspan(
        "run", TINY, "--ranks", "9", "--prompt", "a", "--max-new-tokens", "3", "--rebalance", "auto"
    )
    assert done.code == 0, done.err
    assert "rebalancing: the run ended before the first decision" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ranks", "8", "--rebalance", "sometimes"], "--rebalance 'sometimes': use auto, off or \"every N\""),
        (["--ranks", "8", "--rebalance", "every 0"], "--rebalance 'every 0'"),
        (["--experts-per-rank", "8", "--rebalance", "auto"], "one rank has nowhere to move experts to"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(wingspan, arguments, named):
    done = wingspan("run", TINY, "--prompt", "a", *arguments)
    assert done.code == 2
    assert named in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_settings_of_the_command_line():
    assert parse_rebalance("off") is None
    assert parse_rebalance("auto") == Rebalance()
    assert parse_rebalance("every 50") == Rebalance(every_steps=50)
    assert parse_rebalance("every:3") == Rebalance(every_steps=3, beat_steps=3)
    with pytest.raises(InputError, match="beat_steps = 0"):
        Rebalance(beat_steps=0)


def decision(step: int, verdict: str = "stay") -> Decision:
    return Decision.model_validate(
        {
            "step": step, "verdict": verdict, "reason": "gain exceeds cost", "imbalance_before": 4.0,
            "imbalance_present": 3.9, "imbalance_predicted": 1.1, "present_seconds": 0.1,
            "predicted_seconds": 0.05, "horizon_steps": 100, "gain_seconds": 5.0, "cost_seconds": 0.2,
            "cost_basis": "the last migration", "layers": 2, "experts_moved": 4, "moved_bytes": 4_000_000,
        }
    )  # fmt: skip


def test_a_line_for_each_event():
    migration = Migrated(
        first_step=40, last_step=44, layers=2, layers_rolled_back=1, experts_moved=4, moved_bytes=4_000_000,
        added_seconds=0.3, longest_step_seconds=0.12, imbalance_before=4.0, imbalance_after=1.2,
        imbalance_predicted=1.1, step_seconds_before=0.1, step_seconds_after=0.06,
    )  # fmt: skip
    events = [
        decision(8), decision(16), decision(24), decision(40, "migrate"), migration,
        Rollback(step=43, layer=1, expert=5, source=1, destination=9, reason="its bytes did not arrive in time"),
        PlannerLost(step=48, reason="planner process 7 was killed by signal SIGKILL", restarts=1),
        decision(56), Stopped(step=60, reason="it was enough"),
    ]  # fmt: skip
    shown = lines(events)
    assert len(shown) == 7
    assert shown[0].startswith(
        "steps 8-24: stay, 3 times; the last: imbalance 4.00 measured, 3.90 -> 1.10 predicted"
    )
    assert shown[1] == (
        "step 40: migrate; imbalance 4.00 measured, 3.90 -> 1.10 predicted; gain 5.00 s over 100 steps, cost 200 ms "
        "(4.00 MB at the rate of the last migration); gain exceeds cost"
    )
    assert shown[2] == (
        "steps 40-44: moved 4 experts of 2 layers (4.00 MB), which added 300 ms; 1 layers rolled back; imbalance "
        "4.00 -> 1.20 measured, step 100 ms -> 60.0 ms"
    )
    assert shown[3] == (
        "step 43: layer 1 rolled back: expert 5 from rank 1 to rank 9: its bytes did not arrive in time; the old "
        "placement stays"
    )
    assert "killed by signal SIGKILL; started another (number 1)" in shown[4]
    assert shown[5].startswith("step 56: stay;")
    assert shown[6] == "step 60: no more balancing: it was enough"
