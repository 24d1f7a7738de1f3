import numpy as np
import pytest

from wingspan.schedule.result import Operation, Stream
from wingspan.schedule.schedule import Layers, Schedule, chunked, sequential, streamed, two_batch
from wingspan.simulate.timeline import Lag, Timeline, execute
from wingspan.specs.execution import ScheduleKind
from wingspan.specs.kernels import ContentionKernel

_FREE = ContentionKernel(source="test", compute_slowdown=1, communication_slowdown=1)
_ALIKE = ContentionKernel(source="test", compute_slowdown=1.25, communication_slowdown=1.25)
_SHORT = {Operation.EMBED: 0.0, Operation.HEAD: 0.0, Operation.GATE: 0.0}


def _run(schedule: Schedule, seconds: dict[Operation, list[float]], contention: ContentionKernel) -> Timeline:
    ranks = max(len(s) for s in seconds.values())
    durations = [
        np.broadcast_to(np.array(seconds.get(t.operation, [0.0])), ranks).astype(float)
        for t in schedule.tasks
    ]
    groups = [ranks if t.stream is Stream.COMMUNICATION else 1 for t in schedule.tasks]
    return execute(schedule, durations, groups, contention)


def test_all_ranks_wait_for_the_slowest_before_an_exchange() -> None:
    seconds = {Operation.ATTENTION: [1.0, 3.0], Operation.DISPATCH: [2.0], Operation.EXPERT: [1.0, 1.0]}
    timeline = _run(sequential(Layers(1)), seconds, _FREE)
    numbers = {t.operation: n for n, t in enumerate(timeline.schedule.tasks)}
    assert timeline.starts_NR[numbers[Operation.DISPATCH]].tolist() == [3.0, 3.0]
    assert timeline.step_seconds == 6.0


def test_chunks_hide_transfers_behind_experts() -> None:
    whole = {Operation.DISPATCH: [4.0], Operation.EXPERT: [4.0], Operation.COMBINE: [4.0]}
    halves = {operation: [s / 2 for s in seconds] for operation, seconds in whole.items()}
    assert _run(sequential(Layers(1)), whole, _FREE).step_seconds == 12.0
    # dispatch 0 | dispatch 1, expert 0 | combine 0, expert 1 | combine 1
    assert _run(chunked(Layers(1), 2), halves, _FREE).step_seconds == 8.0


def test_two_batch_hides_attention_and_experts() -> None:
    each = {
        Operation.ATTENTION: [1.0],
        Operation.DISPATCH: [1.0],
        Operation.EXPERT: [1.0],
        Operation.COMBINE: [1.0],
    }
    # The compute stream never stops: 4 layers x 2 micro-batches x 2 s, then the last combine.
    assert _run(two_batch(Layers(4)), each, _FREE).step_seconds == 17.0


def _pieces(
    kind: ScheduleKind, seconds: dict[Operation, list[float]], pieces: int, held: float = 0.0
) -> Timeline:
    """Experts of one product, so many of them, each of which is a piece; a combine holds processors for so long."""
    schedule, ranks = streamed(Layers(1), kind), max(len(s) for s in seconds.values())
    durations = [np.resize(seconds.get(t.operation, [0.0]), ranks) for t in schedule.tasks]
    groups = [ranks if t.stream is Stream.COMMUNICATION else 1 for t in schedule.tasks]
    lags = {
        n: Lag(durations[task.behind] / pieces, durations[n] / pieces)
        for n, task in enumerate(schedule.tasks)
        if task.behind is not None
    }
    processors = {
        n: np.full(ranks, held if task.operation is Operation.COMBINE else 0.0)
        for n, task in enumerate(schedule.tasks)
        if task.stream is Stream.COMMUNICATION
    }
    return execute(schedule, durations, groups, _FREE, processors, lags)


@pytest.mark.parametrize(("combine", "step"), [(4.0, 9.0), (2.0, 8.5), (8.0, 13.0)])
def test_rows_return_expert_by_expert(combine: float, step: float) -> None:
    # Dispatch 4; of 4 experts a second each the first is done after 1. The last one's rows leave when all are done.
    seconds = {Operation.DISPATCH: [4.0], Operation.EXPERT: [4.0], Operation.COMBINE: [combine]}
    timeline = _pieces(ScheduleKind.SINGLE_BATCH, seconds, pieces=4)
    assert timeline.step_seconds == pytest.approx(step)


def test_a_fused_layer_computes_what_has_come() -> None:
    seconds = {Operation.DISPATCH: [4.0], Operation.EXPERT: [4.0], Operation.COMBINE: [4.0]}
    # Experts from 1 to 5; the links carry what comes until 4, then what returns.
    assert _pieces(ScheduleKind.FUSED, seconds, pieces=4).step_seconds == pytest.approx(8.0)
    assert _pieces(ScheduleKind.FUSED, seconds, pieces=1).step_seconds == pytest.approx(12.0)


def test_the_fullest_rank_ends_a_combine_behind_the_experts() -> None:
    seconds = {Operation.EXPERT: [1.0, 4.0], Operation.COMBINE: [1.0]}
    timeline = _pieces(ScheduleKind.SINGLE_BATCH, seconds, pieces=4)
    combine = next(n for n, t in enumerate(timeline.schedule.tasks) if t.operation is Operation.COMBINE)
    # It begins with the fullest rank's first rows and ends with its last.
    assert timeline.starts_NR[combine].tolist() == [1.0, 1.0]
    assert timeline.ends_NR[combine].tolist() == [4.25, 4.25]


def test_experts_lack_the_processors_that_send_beside_them() -> None:
    seconds = {Operation.EXPERT: [4.0], Operation.COMBINE: [4.0]}
    timeline = _pieces(ScheduleKind.SINGLE_BATCH, seconds, pieces=4, held=1.0)
    expert = next(n for n, t in enumerate(timeline.schedule.tasks) if t.operation is Operation.EXPERT)
    # A quarter of the processors send while the last three quarters are computed.
    assert timeline.ends_NR[expert, 0] == pytest.approx(5.0, rel=0.01)


def test_contention_is_the_closed_form_of_two_tasks_side_by_side() -> None:
    # Shared expert 4 s beside a dispatch of 2 s, slowed 1.25 x each: the dispatch ends after 2.5 s, by when 2 s
    # of computing are done; 2 s are left.
    seconds = {Operation.SHARED_EXPERT: [4.0], Operation.DISPATCH: [2.0]}
    timeline = _run(sequential(Layers(1, shared_expert=True)), seconds, _ALIKE)
    assert timeline.step_seconds == pytest.approx(4.5, rel=1e-3)


def test_no_overlap_no_slowdown() -> None:
    seconds = {Operation.ATTENTION: [1.0], Operation.DISPATCH: [2.0], Operation.EXPERT: [3.0]}
    assert _run(sequential(Layers(2)), seconds, _ALIKE).step_seconds == pytest.approx(12.0)


def test_groups_meet_only_among_themselves() -> None:
    schedule = sequential(Layers(1, frozenset({0}), tensor_parallel=True))
    durations = [
        np.array([5.0, 1.0, 1.0, 1.0]) if t.operation is Operation.EMBED else np.zeros(4)
        for t in schedule.tasks
    ]
    groups = [2 if t.stream is Stream.COMMUNICATION else 1 for t in schedule.tasks]
    assert execute(schedule, durations, groups, _FREE).ends_NR[-1].tolist() == [5.0, 5.0, 1.0, 1.0]


def test_computing_stands_still_as_long_as_a_transfer_holds_the_processors() -> None:
    # A shared expert of 4 s beside a dispatch of 2 s that holds the processors for 0.5 s of it: 4.5 s, and the
    # dispatch is not slowed.
    schedule = sequential(Layers(1, shared_expert=True))
    seconds = {Operation.SHARED_EXPERT: 4.0, Operation.DISPATCH: 2.0}
    durations = [np.array([seconds.get(task.operation, 0.0)]) for task in schedule.tasks]
    number = next(n for n, task in enumerate(schedule.tasks) if task.operation is Operation.DISPATCH)
    timeline = execute(schedule, durations, [1] * len(durations), _ALIKE, {number: np.array([0.5])})
    assert timeline.step_seconds == pytest.approx(4.5, rel=1e-3)
    assert timeline.ends_NR[number] - timeline.starts_NR[number] == pytest.approx(2.0)
