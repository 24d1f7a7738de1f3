"""What a rank records stays bounded, and the report says of which steps its figures are."""

from __future__ import annotations

import numpy as np

from wingspan.placement.simple import linear
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.measuring.report import RankMeasurement, step_report
from wingspan.runtime.ranks.world import World


def recorded(decode_steps: int) -> Recorder:
    recorder = Recorder(0, 1, keep_steps=4)
    recorder.begin_step("prefill", 7)
    recorder.end_step()
    for number in range(decode_steps):
        recorder.begin_step("decode", number)
        recorder.end_step()
    return recorder


def test_the_latest_steps_of_each_phase_are_kept():
    recorder = recorded(50)
    assert [(s.phase, s.tokens) for s in recorder.steps] == [
        ("prefill", 7), ("decode", 46), ("decode", 47), ("decode", 48), ("decode", 49),
    ]  # fmt: skip
    assert recorder.ended == {"prefill": 1, "decode": 50}


def test_a_look_finds_the_steps_since_the_last_that_are_still_kept():
    recorder = recorded(3)
    assert [(s.phase, s.tokens) for s in recorder.since({})] == [
        ("decode", 0), ("decode", 1), ("decode", 2), ("prefill", 7),
    ]  # fmt: skip
    seen = dict(recorder.ended)
    assert recorder.since(seen) == []
    recorder.begin_step("decode", 8)
    recorder.end_step()
    assert [s.tokens for s in recorder.since(seen)] == [8]
    assert [s.tokens for s in recorded(50).since({"prefill": 1, "decode": 3})] == [46, 47, 48, 49]


def test_the_report_says_what_its_figures_are_of():
    for steps, words in ((3, None), (50, "of the latest 4 of 50 steps")):
        recorder = recorded(steps)
        load = {"decode": np.ones((1, 2), dtype=np.int64)}
        measured = RankMeasurement(0, recorder.steps, load, {}, 1, [], recorder.ended)
        world = World(0, 1, 1, 0)
        report = step_report([measured], "decode", linear(1, 2, 1, 2), world, "sequential")
        assert report is not None
        assert report.steps == min(steps, 4)
        assert report.notes[2:] == ([] if words is None else [f"figures are {words}; load_tokens of all"])
