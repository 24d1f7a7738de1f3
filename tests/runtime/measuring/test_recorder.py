"""What a rank records stays bounded, and the report says of which steps its figures are."""

from __future__ import annotations

import numpy as np

from wingspan.placement.simple import linear
from wingspan.runtime.measuring.recorder import Recorder, SpanKey
from wingspan.runtime.measuring.report import RankMeasurement, step_report
from wingspan.runtime.ranks.world import World
from wingspan.schedule.result import Operation


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


class LateClock:
    """Moments that are no seconds until they are read, as events of a GPU."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.reads = 0

    def now(self) -> object:
        """A moment; the n-th was at n seconds."""
        self.taken.append(object())
        return self.taken[-1]

    def read(self, moments: list[object]) -> list[float]:
        """All at once."""
        self.reads += 1
        return [float(self.taken.index(moment)) for moment in moments]


def test_moments_become_seconds_when_the_step_ends_and_not_before():
    clock = LateClock()
    recorder = Recorder(0, 2, keep_spans=True, clock=clock)  # type: ignore[arg-type]
    recorder.begin_step("decode", 3)  # 0
    gate, inner = recorder.now(), (recorder.now(), recorder.now())  # 1, 2, 3
    recorder.compute(Operation.GATE, SpanKey(0), gate, without=[inner])  # 4
    begun, held = recorder.now(), (recorder.now(), recorder.now())  # 5, 6, 7
    recorder.transfer(Operation.DISPATCH, SpanKey(0), begun, recorder.now(), [held], ([0, 8], [0, 4]))  # 8
    assert clock.reads == 0
    assert recorder.settle() == 9.0, "in the midst of a step, where somebody must know"
    recorder.compute(Operation.EXPERT, SpanKey(0), recorder.now())  # 10, 11
    recorder.end_step()  # 12
    (step,) = recorder.steps
    assert (step.start_seconds, step.seconds, clock.reads) == (0.0, 12.0, 2)
    assert step.operation_seconds == {
        Operation.GATE: 2.0, Operation.DISPATCH: 3.0, Operation.EXPERT: 1.0
    }  # fmt: skip
    assert [each.exposed_seconds for each in step.exchanges] == [1.0]
    assert (step.sent_R, step.received_R) == ([0, 8], [0, 4])
    assert [(s.operation, s.start_seconds, s.end_seconds) for s in recorder.spans] == [
        (Operation.GATE, 2.0, 4.0),
        (Operation.DISPATCH, 5.0, 8.0),
        (Operation.EXPERT, 10.0, 11.0),
    ]
