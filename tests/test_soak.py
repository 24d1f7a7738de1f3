"""The soak of `benchmarks.soak`, short: and it tells of a wrong result, a leak, a hang."""

from __future__ import annotations

import os
import re
import time

import pytest
import torch
from benchmarks import soak, uneven
from benchmarks.soak import WAYS, Soak, run

from wingspan.errors import RunError

SHORT = Soak(steps=50, ranks=4, most_growth_bytes=8_000_000)


@pytest.mark.parametrize("way", ["gloo", "gloo-nodes", "shm", "shm-nodes"])
def test_uneven_steps_leave_nothing(way, capfd):
    run(WAYS[way], SHORT)
    said = capfd.readouterr().out
    assert f"{way:10} 50 steps in " in said
    assert f"{way:10} descriptors: " in said


def test_steps_are_uneven():
    plans = [uneven.plan(number, 4) for number in range(uneven.largest_steps(4), SHORT.steps)]
    assert {plan.flow.name for plan in plans} == {flow.name for flow in uneven.FLOWS}
    assert any(sum(plan.tokens_R) == 0 for plan in plans)
    assert any(0 in plan.tokens_R and sum(plan.tokens_R) for plan in plans)
    assert {plan.dtype for plan in plans} == {torch.float32, torch.bfloat16}


def test_a_wrong_result_is_named(monkeypatch):
    monkeypatch.setattr(soak, "expected", lambda given, layer: uneven.expected(given, layer) + layer)
    with pytest.raises(
        RunError, match=r"rank \d, step 0, sequential, layer 1: \d+ of 300 tokens came out wrong"
    ):
        run(WAYS["shm"], SHORT)


class Worse(soak.Rank):
    """Does something besides in each step."""

    def step(self, number: int) -> None:
        super().step(number)
        self.besides()

    def besides(self) -> None: ...


def test_leaks_are_named(monkeypatch):
    kept: list[object] = []
    monkeypatch.setattr(Worse, "besides", lambda _: kept.append((os.dup(0), torch.ones(100_000))))
    monkeypatch.setattr(soak, "Rank", Worse)
    with pytest.raises(RunError, match=r"shm: rank 0 grew by \d+ bytes; rank 1") as caught:
        run(WAYS["shm"], SHORT)
    assert re.search(r"rank 3 went from \d+ to \d+ descriptors", str(caught.value))


def test_a_hang_shows_where(monkeypatch, capfd):
    monkeypatch.setattr(Worse, "besides", lambda _: time.sleep(60))
    monkeypatch.setattr(soak, "Rank", Worse)
    with pytest.raises(RunError, match="ended with exit code 1"):
        run(WAYS["shm"], Soak(steps=60, ranks=4, most_step_seconds=1))
    assert "in step" in capfd.readouterr().err
