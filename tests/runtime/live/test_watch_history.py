"""Loads and costs as rank 0 learns them, checked by hand.

Shapes: L layers, E experts, R ranks.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.runtime.live.layers import HIDDEN, experts_module
from wingspan.runtime.live.history import History
from wingspan.runtime.live.watch import Report, Watch
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.experts import LocalExperts
from wingspan.schedule.result import Operation


def report(load: list[list[int]], rows: list[int], seconds: float = 0.0, steps: int = 4) -> Report:
    sample = np.zeros((len(load), 0, 0), dtype=np.int16)
    return Report(steps, np.array(load, dtype=np.int32), sample, np.array(rows), seconds, 0.5, 0.6, 0.9, 0.0)


def test_a_watch_reports_what_happened_since_the_last_time():
    recorder = Recorder(0, 1)
    experts = [LocalExperts(experts_module(0, [0, 1], 2)) for _ in range(2)]
    watch = Watch(experts, 4, recorder, sample_tokens=16)
    for number in range(3):
        recorder.begin_step("decode", 5)
        experts[1](torch.zeros(number + 1, HIDDEN), [1, number])
        recorder._add(Operation.EXPERT, 2.0)
        for layer in range(2):
            watch.observe(layer, torch.tensor([[0, 1], [2, 3], [1, 2]]))
        watch.count(torch.tensor([[1, 2, 3, 0], [6, 0, 0, 0]]))
        recorder.end_step()
    assert watch.steps == 3
    taken = watch.take()
    assert taken.steps == 3
    assert taken.load_LE.tolist() == [[3, 6, 9, 0], [18, 0, 0, 0]]
    assert taken.rows_L.tolist() == [0, 6]
    assert taken.expert_seconds == 6.0
    # Two tokens a call, evenly spaced, in both layers.
    assert taken.sample_LXK.tolist() == [[[0, 1], [1, 2]] * 3] * 2
    assert taken.longest_seconds >= taken.upper_seconds >= taken.step_seconds > 0
    again = watch.take()
    assert (again.steps, again.expert_seconds, again.longest_seconds) == (0, 0.0, 0.0)
    assert not again.load_LE.any()
    assert not again.rows_L.any()
    assert again.sample_LXK.size == 0


def test_a_watch_keeps_no_more_than_its_sample():
    watch = Watch([LocalExperts(experts_module(0, [0], 1))], 4, Recorder(0, 1), sample_tokens=16)
    for _ in range(100):
        watch.observe(0, torch.zeros((50, 2), dtype=torch.int64))
        watch.observe(0, torch.zeros((0, 2), dtype=torch.int64))
    assert watch.take().sample_LXK.shape == (1, 16, 2)


def test_the_mean_fades_and_the_window_does_not():
    """Half-life of one report: a load of 8, then of 0 tokens per step, leaves (8 x 1/4) / (3/4)."""
    history = History(num_nodes=2, half_life_steps=4)
    history.add([report([[32, 0]], [8]), report([[0, 0]], [8])])
    assert history.load_LE.tolist() == [[8.0, 0.0]]
    assert history.source_LEN.tolist() == [[[8.0, 0.0], [0.0, 0.0]]]
    history.add([report([[0, 0]], [8]), report([[0, 16]], [0])])
    assert history.load_LE == pytest.approx(np.array([[8 / 3, 8 / 3]]))
    assert history.source_LEN[0, 1] == pytest.approx([0, 8 / 3])
    assert history.window_load_LE.tolist() == [[4.0, 2.0]]
    history.add([report([[0, 0]], [8]), report([[0, 0]], [8])])
    assert history.window_load_LE.tolist() == [[0.0, 2.0]]


def test_imbalance_is_taken_per_layer_and_then_averaged():
    history = History(1, 4)
    history.add([report([[1], [1]], [3, 1]), report([[1], [1]], [1, 3])])
    assert history.imbalance == 1.5


def test_a_row_costs_the_slope_not_the_calls():
    """0.1 s without any row, 1 ms for each."""
    history = History(1, 4)
    history.add([report([[1]], [rows], 0.1 + rows * 1e-3) for rows in (10, 100, 400)])
    assert history.seconds_per_row == pytest.approx(1e-3)
    # All alike says nothing about the slope; what is known stays.
    for _ in range(20):
        history.add([report([[1]], [100], 5.0) for _ in range(3)])
    assert history.seconds_per_row == pytest.approx(1e-3, rel=0.5)


def test_without_a_spread_a_row_costs_its_share():
    history = History(1, 4)
    history.add([report([[1]], [100], 0.2) for _ in range(3)])
    assert history.seconds_per_row == pytest.approx(2e-3)
