"""From recorders to a timeline: who waits for whom, on clocks that differ."""

from __future__ import annotations

import pytest

from wingspan.runtime.measuring.recorder import HeldUp, Recorder, SpanKey, StepRecord, clock_name
from wingspan.runtime.measuring.report import RankMeasurement
from wingspan.runtime.measuring.timeline import run_timeline
from wingspan.schedule.result import Operation

KEY = SpanKey(layer=3)


def measured(rank: int, began: float, held: list[tuple[float, float]], clock: str) -> RankMeasurement:
    """One step of 10 s with a dispatch, from when a rank's clock shows `began`."""
    recorder = Recorder(rank, 2, keep_spans=True)
    recorder.begin_step("decode", 5)
    moments = [(began + start, began + end) for start, end in held]
    recorder.transfer(Operation.DISPATCH, KEY, moments[0][0], moments[-1][1], moments, ([7, 8], [9, 6]))
    recorder.end_step()
    step = recorder.steps[0]
    step.start_seconds, step.seconds = began, 10.0
    return RankMeasurement(rank, recorder.steps, {}, {}, 1, recorder.spans, clock=clock)


@pytest.mark.parametrize(("began", "clock"), [(100.0, "a"), (-5000.0, "b")])
def test_a_rank_waits_for_slower_ones_at_the_begin_of_an_exchange(began, clock):
    ranks = [measured(0, 100.0, [(1, 3), (4, 9)], "a"), measured(1, began, [(5, 9)], clock)]
    timeline = run_timeline(ranks)
    waits = [s for s in timeline.spans if s.operation is Operation.WAIT]
    # 7 s held up beside 4 s of the fastest: 3 s waited, 2 s of them in the first stretch.
    assert [(s.rank, s.layer, s.start_seconds, s.end_seconds) for s in waits] == [
        (0, 3, 101, 103),
        (0, 3, 104, 105),
    ]
    assert {(s.start_seconds, s.end_seconds) for s in timeline.steps} == {(100.0, 110.0)}
    sent = [s for s in timeline.spans if s.operation is Operation.DISPATCH]
    assert [(s.rank, s.start_seconds, s.peers, s.peer_bytes) for s in sent] == [
        (0, 101, (1,), (8,)), (1, 105, (0,), (7,)),
    ]  # fmt: skip
    assert [(s.sent_bytes, s.received_bytes) for s in sent] == [(8, 6), (7, 9)]


def test_nothing_is_kept_for_a_timeline_that_nobody_asked_for():
    recorder = Recorder(0, 2)
    recorder.begin_step("decode", 5)
    recorder.transfer(Operation.DISPATCH, KEY, 0.0, 2.0, [(0.0, 1.5)], ([0, 8], [0, 6]))
    recorder.end_step()
    assert recorder.spans == []
    step: StepRecord = recorder.steps[0]
    assert step.exchanges == [HeldUp(Operation.DISPATCH, 1.5, KEY)]
    assert not run_timeline([RankMeasurement(0, recorder.steps, {}, {}, 1, [])]).steps


def test_ranks_of_one_machine_have_one_clock():
    assert clock_name() == clock_name() != ""
