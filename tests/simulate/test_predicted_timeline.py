"""A predicted step as a timeline: nothing is left out, waiting is what the report says, and rows go where they may."""

from __future__ import annotations

import pytest

from tests.simulate.builders import deployment
from wingspan.schedule.result import Operation, Stream
from wingspan.simulate.predicted_timeline import predicted_timeline
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report


@pytest.mark.parametrize("schedule", ["sequential", "chunks:2", "two-batch"])
def test_spans_of_chosen_ranks_hold_all_that_the_report_has(schedule: str) -> None:
    prediction = predict(deployment(ranks=16, options={"schedule": schedule, "engine": "sglang"}))
    report = step_report(prediction)
    timeline = predicted_timeline(prediction, [1, 9])
    assert {span.rank for span in timeline.spans} == {step.rank for step in timeline.steps} == {1, 9}
    assert timeline.step_seconds("decode") == {1: report.step_seconds}
    for rank in (1, 9):
        for operation, seconds in report.operation_seconds.items():
            own = [s for s in timeline.spans if (s.rank, s.operation) == (rank, operation)]
            assert sum(s.end_seconds - s.start_seconds for s in own) == pytest.approx(seconds[rank], rel=1e-6)
            assert {s.stream for s in own} <= {
                Stream.COMMUNICATION if operation in ("dispatch", "combine") else Stream.COMPUTE
            }


def test_rows_leave_for_every_rank_or_on_their_rail_alone() -> None:
    for dispatcher, partners in (("flat", 15), ("hierarchical", 8)):
        prediction = predict(deployment(ranks=16, options={"dispatcher": dispatcher}))
        timeline = predicted_timeline(prediction, list(range(16)))
        transfers = [s for s in timeline.spans if s.operation in (Operation.DISPATCH, Operation.COMBINE)]
        assert {len(s.peers) for s in transfers} == {partners}
        assert all(s.rank not in s.peers for s in transfers)
