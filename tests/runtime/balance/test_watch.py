"""What one rank reports of its load.

Shapes: L layers, E experts.
"""

from __future__ import annotations

import pytest
import torch

from tests.runtime.balance.layers import HIDDEN, experts_module
from wingspan.runtime.balance.watch import Watch
from wingspan.runtime.measuring.recorder import Recorder, SpanKey
from wingspan.runtime.model.experts import LocalExperts
from wingspan.schedule.result import Operation


def test_a_watch_reports_what_happened_since_the_last_time():
    recorder = Recorder(0, 1)
    experts = [LocalExperts(experts_module(0, [0, 1], 2)) for _ in range(2)]
    watch = Watch(experts, 4, recorder, sample_tokens=16)
    for number in range(3):
        recorder.begin_step("decode", 5)
        experts[1](torch.zeros(number + 1, HIDDEN), [1, number])
        begun = recorder.now()
        assert isinstance(begun, float)
        recorder.compute(Operation.EXPERT, SpanKey(0), begun - 2.0)
        for layer in range(2):
            watch.observe(layer, torch.tensor([[0, 1], [2, 3], [1, 2]]))
        watch.count(torch.tensor([[1, 2, 3, 0], [6, 0, 0, 0]]))
        recorder.end_step()
    assert watch.steps == 3
    taken = watch.take()
    assert taken.steps == 3
    assert taken.load_LE.tolist() == [[3, 6, 9, 0], [18, 0, 0, 0]]
    assert taken.rows_L.tolist() == [0, 6]
    assert taken.expert_seconds == pytest.approx(6.0, abs=1.0)
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
