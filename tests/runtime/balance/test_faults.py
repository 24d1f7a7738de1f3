"""A migration that goes wrong is noticed, named and undone or ended cleanly; no output is ever wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.balance.inline_planner import InlinePlanner
from tests.runtime.balance.layers import CPU, HIDDEN, Rank
from tests.runtime.balance.test_migration import carry_out
from tests.runtime.forked import on_ranks
from wingspan.balance import controller
from wingspan.balance.orders import Order
from wingspan.balance.settings import Rebalance
from wingspan.errors import RunError
from wingspan.runtime.balance.migration import Migration
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.transport.transport import Transport
from wingspan.runtime.transport.work_handle import WorkHandle
from wingspan.schedule.rebalance_result import (
    Decision,
    Migrated,
    PlannerLost,
    RebalanceEvent,
    Rollback,
    Stopped,
)
from wingspan.specs.placement import EMPTY, Placement
from wingspan.traffic.distinct import Choice

OLD = Placement(np.array([[[0], [1], [2], [EMPTY]]] * 2), 3)
NEW = Placement(np.array([[[0], [1], [2], [1]], [[2], [1], [0], [0]]]), 3)


class FlippingChannel(WeightChannel):
    """One bit of every message to rank 3 turns over on its way."""

    def send(self, raw_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
        if rank == 3:
            raw_B = raw_B.clone()
            raw_B[len(raw_B) // 2] ^= 4
        return super().send(raw_B, rank, tag)


class LosingChannel(WeightChannel):
    """No message to rank 3 is ever sent."""

    def send(self, raw_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
        return None if rank == 3 else super().send(raw_B, rank, tag)


@pytest.mark.parametrize(
    ("kind", "reason"), [(FlippingChannel, "another checksum"), (LosingChannel, "did not arrive in time")]
)
def test_a_layer_that_does_not_arrive_whole_keeps_its_old_placement(tmp_path, kind, reason):
    """Both layers want something on rank 3; afterwards the same moves succeed over a sound channel."""

    def work(transport: Transport) -> tuple[list[Rollback], bool, float, bool]:
        rank = Rank(transport, OLD)
        order = Order(NEW, 10_000, arrival_seconds=0.5)
        first = Migration(order, OLD, rank.site(kind()), 0, 100)
        step, worst = carry_out(rank, first, 0)
        unchanged = first.placement == OLD
        second = Migration(Order(NEW, 10_000, 30), OLD, rank.site(), step, first.next_tag)
        step, later = carry_out(rank, second, step)
        return first.rollbacks, unchanged, max(worst, later, rank.step(step)), second.placement == NEW

    results = on_ranks(work, 4, tmp_path)
    rollbacks, unchanged, worst, moved = results[0]
    assert [(r.layer, r.expert, r.source, r.destination) for r in rollbacks] == [(0, 1, 1, 3), (1, 0, 0, 3)]
    assert all(reason in r.reason for r in rollbacks)
    assert unchanged
    assert moved
    assert worst < 1e-5
    # Rank 3's timer and its sender's may differ; what all ranks did may not.
    assert [r[0] for r in results] == [rollbacks] * 4
    assert all(r[1] and r[3] and r[2] < 1e-5 for r in results)


def rebalanced(transport: Transport, settings: Rebalance) -> tuple[Rank, Rebalancer]:
    rank = Rank(transport, OLD)
    made = Rebalancer(
        settings, transport, OLD, rank.layers, rank.dispatchers, rank.monitor, rank.recorder, HIDDEN * 4,
        Choice(OLD.num_experts, 2), CPU,
    )  # fmt: skip
    return rank, made


def run_until(
    transport: Transport,
    rank: Rank,
    made: Rebalancer,
    done: Callable[[list[RebalanceEvent]], bool],
    seconds: float = 60,
) -> float:
    """Steps until rank 0's log says so; the largest error of any output."""
    worst, step, deadline = 0.0, 0, time.monotonic() + seconds
    while True:
        step += 1
        worst = max(worst, rank.step(step))
        made.after_step(rank.monitor.take(), 1000)
        events = made.events
        if transport.broadcast(done(events) or time.monotonic() > deadline):
            return worst


def ordered(events: list[RebalanceEvent]) -> bool:
    return any(isinstance(e, Decision) and e.verdict == "migrate" for e in events)


EVERY_FEW = Rebalance(every_steps=4, beat_steps=2, step_bytes=4000)


def test_all_ranks_change_layers_at_the_same_steps(tmp_path, monkeypatch):
    """Whatever their own pace: every rank is slow by turns."""
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)

    def work(transport: Transport) -> list[tuple[int, bytes]]:
        rank, made = rebalanced(transport, Rebalance(every_steps=3, beat_steps=2, step_bytes=500))
        pace = np.random.default_rng(transport.world.rank)
        seen: list[tuple[int, bytes]] = []
        for step in range(60):
            assert rank.step(step) < 1e-5
            time.sleep(float(pace.random()) * 0.004)
            made.after_step(rank.monitor.take(), 100)
            now = made.placement.slots_LRS.tobytes()
            if not seen or seen[-1][1] != now:
                seen.append((step, now))
        made.finish()
        return seen

    changes = on_ranks(work, 4, tmp_path)
    assert len(changes[0]) > 2
    assert changes[1:] == changes[:1] * 3


def test_a_killed_planner_is_replaced_and_balancing_goes_on(tmp_path):
    def work(transport: Transport) -> tuple[list[RebalanceEvent], float]:
        rank, made = rebalanced(transport, EVERY_FEW)
        if transport.world.rank == 0:
            (planner,) = psutil.Process().children()
            planner.kill()
        worst = run_until(transport, rank, made, lambda events: any(isinstance(e, Decision) for e in events))
        return made.finish(), max(worst, rank.step(0))

    results = on_ranks(work, 4, tmp_path)
    events = results[0][0]
    assert isinstance(events[0], PlannerLost)
    assert "was killed by signal SIGKILL" in events[0].reason
    assert events[0].restarts == 1
    assert any(isinstance(e, Decision) for e in events)
    assert all(worst < 1e-5 for _, worst in results)
    assert all(e == [] for e, _ in results[1:])


def test_a_planner_that_always_dies_stops_balancing_not_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(controller, "_MOST_RESTARTS", 2)
    monkeypatch.setattr("sys.executable", "/bin/false")

    def work(transport: Transport) -> tuple[list[RebalanceEvent], float]:
        rank, made = rebalanced(transport, EVERY_FEW)
        worst = run_until(transport, rank, made, lambda events: any(isinstance(e, Stopped) for e in events))
        return made.finish(), max(worst, rank.step(0))

    results = on_ranks(work, 4, tmp_path)
    events = results[0][0]
    assert [type(e) for e in events] == [PlannerLost, PlannerLost, Stopped]
    assert "ended with exit code 1" in events[2].reason
    assert all(worst < 1e-5 for _, worst in results)


def test_migrations_that_always_fail_stop_balancing(tmp_path, monkeypatch):
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)
    monkeypatch.setattr("wingspan.runtime.balance.rebalancer.WeightChannel", FlippingAll)

    def work(transport: Transport) -> tuple[list[RebalanceEvent], bool, float]:
        rank, made = rebalanced(transport, EVERY_FEW)
        worst = run_until(transport, rank, made, lambda events: any(isinstance(e, Stopped) for e in events))
        return made.finish(), made.placement == OLD, max(worst, rank.step(0))

    results = on_ranks(work, 4, tmp_path)
    assert all(unchanged and worst < 1e-5 for _, unchanged, worst in results)
    events = results[0][0]
    assert isinstance(events[-1], Stopped)
    assert "3 migrations in a row had to be rolled back" in events[-1].reason
    assert not any(isinstance(e, Migrated) for e in events)


class FlippingAll(WeightChannel):
    """Every message of a migration is damaged; the calibration's may be."""

    def send(self, raw_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
        raw_B = raw_B.clone()
        raw_B[0] ^= 1
        return super().send(raw_B, rank, tag)


def test_a_rank_killed_in_the_middle_is_named_and_nobody_is_left(tmp_path: Path, monkeypatch):
    """Rank 2 dies with a layer half sent. The planner ends with rank 0."""
    pids = tmp_path / "planner"

    class DeadlyChannel(WeightChannel):
        def send(self, raw_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
            if tag > 100 and os.environ["RANK"] == "2":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().send(raw_B, rank, tag)

    def work(transport: Transport) -> None:
        rank = Rank(transport, OLD)
        _, made = rebalanced(transport, EVERY_FEW)
        if transport.world.rank == 0:
            pids.write_text(str(psutil.Process().children()[0].pid))
        order = Order(Placement(np.array([[[0], [1], [2], [2]]] * 2), 3), 100, 30)
        carry_out(rank, Migration(order, OLD, rank.site(DeadlyChannel()), 0, 101), 0)
        del made

    start = time.monotonic()
    with pytest.raises(RunError, match="rank 2 was killed by signal SIGKILL"):
        run_ranks(work, 4, 4, CPU)
    assert time.monotonic() - start < 30
    assert psutil.Process().children(recursive=True) == []
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(pids.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pids.read_text()))


def test_a_run_that_ends_with_a_layer_under_way_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(controller, "PlannerClient", InlinePlanner)

    def work(transport: Transport) -> tuple[list[RebalanceEvent], float]:
        rank, made = rebalanced(transport, Rebalance(every_steps=2, beat_steps=2, step_bytes=1))
        worst = run_until(transport, rank, made, ordered)
        worst = max(worst, rank.step(1))
        made.after_step(rank.monitor.take(), 1)
        return made.finish(), worst

    results = on_ranks(work, 4, tmp_path)
    events = results[0][0]
    assert isinstance(events[-1], Stopped)
    assert "the run ended while layer 0 was under way" in events[-1].reason
    assert all(worst < 1e-5 for _, worst in results)
