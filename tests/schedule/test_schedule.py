import pytest

from wingspan.errors import InputError
from wingspan.schedule.result import Operation, Stream
from wingspan.schedule.schedule import Layers, Schedule, chunked, sequential, streamed, two_batch
from wingspan.specs.execution import ScheduleKind

_O = Operation


def _names(schedule: Schedule, batch: int = 0) -> list[Operation]:
    return [task.operation for task in schedule.tasks if task.micro_batch == batch]


def test_sequential_order_of_a_dense_and_a_moe_layer() -> None:
    schedule = sequential(Layers(2, frozenset({0})))
    assert _names(schedule) == [
        _O.EMBED, _O.ATTENTION, _O.DENSE, _O.ATTENTION, _O.GATE, _O.DISPATCH, _O.EXPERT, _O.COMBINE, _O.HEAD,
    ]  # fmt: skip
    assert all(task.after == ((number - 1,) if number else ()) for number, task in enumerate(schedule.tasks))


def test_shared_expert_beside_or_before_the_dispatch() -> None:
    beside = sequential(Layers(1, shared_expert=True))
    numbers = {task.operation: number for number, task in enumerate(beside.tasks)}
    assert beside.tasks[numbers[_O.DISPATCH]].after == (numbers[_O.GATE],)
    assert beside.tasks[numbers[_O.SHARED_EXPERT]].after == (numbers[_O.GATE],)
    assert set(beside.tasks[numbers[_O.HEAD]].after) == {numbers[_O.SHARED_EXPERT], numbers[_O.COMBINE]}
    before = sequential(Layers(1, shared_expert=True, shared_beside_dispatch=False))
    numbers = {task.operation: number for number, task in enumerate(before.tasks)}
    assert before.tasks[numbers[_O.DISPATCH]].after == (numbers[_O.SHARED_EXPERT],)


def test_chunks_send_the_next_before_they_compute_the_last() -> None:
    order = [(task.operation, task.chunk) for task in chunked(Layers(1), 3).tasks[3:-1]]
    assert order == [
        (_O.DISPATCH, 0), (_O.DISPATCH, 1), (_O.EXPERT, 0), (_O.COMBINE, 0),
        (_O.DISPATCH, 2), (_O.EXPERT, 1), (_O.COMBINE, 1), (_O.EXPERT, 2), (_O.COMBINE, 2),
    ]  # fmt: skip


def test_every_chunk_leaves_as_soon_as_the_gate_has_chosen() -> None:
    tasks = chunked(Layers(1), 4).tasks
    gate = next(n for n, task in enumerate(tasks) if task.operation is _O.GATE)
    assert {task.after for task in tasks if task.operation is _O.DISPATCH} == {(gate,)}


def test_rows_return_behind_the_experts_and_in_a_fused_kernel_come_so_too() -> None:
    layers = Layers(1, shared_expert=True)
    for kind, behind in (
        (ScheduleKind.SINGLE_BATCH, {_O.COMBINE}),
        (ScheduleKind.FUSED, {_O.EXPERT, _O.COMBINE}),
    ):
        tasks = streamed(layers, kind).tasks
        assert [task.operation for task in tasks] == _names(sequential(layers))
        assert {task.operation for task in tasks if task.behind is not None} == behind
        pairs = {(task.operation, tasks[task.behind].operation) for task in tasks if task.behind is not None}
        assert (_O.COMBINE, _O.EXPERT) in pairs
        assert pairs <= {(_O.COMBINE, _O.EXPERT), (_O.EXPERT, _O.DISPATCH)}


def test_nothing_is_behind_where_no_rows_travel() -> None:
    tasks = streamed(Layers(1, expert_parallel=False), ScheduleKind.FUSED).tasks
    assert all(task.behind is None for task in tasks)


def test_two_batch_sends_one_before_it_computes_the_other() -> None:
    tasks = two_batch(Layers(1)).tasks
    order = [(task.operation, task.micro_batch) for task in tasks[2:-2]]
    assert order == [
        (_O.ATTENTION, 0), (_O.GATE, 0), (_O.DISPATCH, 0), (_O.ATTENTION, 1), (_O.GATE, 1), (_O.DISPATCH, 1),
        (_O.EXPERT, 0), (_O.COMBINE, 0), (_O.EXPERT, 1), (_O.COMBINE, 1),
    ]  # fmt: skip


def test_micro_batches_never_depend_on_each_other() -> None:
    tasks = two_batch(Layers(3, frozenset({0}), shared_expert=True, tensor_parallel=True)).tasks
    assert all(tasks[earlier].micro_batch == task.micro_batch for task in tasks for earlier in task.after)


@pytest.mark.parametrize(
    "schedule",
    [
        sequential(Layers(3, frozenset({0}), shared_expert=True)),
        chunked(Layers(3), 4),
        two_batch(Layers(3, tensor_parallel=True)),
    ],
)
def test_dependencies_point_backwards_and_everything_is_done(schedule: Schedule) -> None:
    assert all(earlier < number for number, task in enumerate(schedule.tasks) for earlier in task.after)
    for task in schedule.tasks:
        exchanged = task.operation in (_O.DISPATCH, _O.COMBINE, _O.ALL_GATHER, _O.REDUCE_SCATTER)
        assert (task.stream is Stream.COMMUNICATION) is exchanged
    dispatched = {(t.layer, t.micro_batch, t.chunk) for t in schedule.tasks if t.operation is _O.DISPATCH}
    combined = {(t.layer, t.micro_batch, t.chunk) for t in schedule.tasks if t.operation is _O.COMBINE}
    assert dispatched == combined


def test_tensor_parallel_attention_gathers_and_scatters() -> None:
    names = _names(sequential(Layers(1, frozenset({0}), tensor_parallel=True)))
    around = [_O.ALL_GATHER, _O.ATTENTION, _O.REDUCE_SCATTER, _O.ALL_GATHER, _O.DENSE, _O.REDUCE_SCATTER]
    assert names[1:-1] == around


def test_no_chunks_are_refused() -> None:
    with pytest.raises(InputError, match="0"):
        chunked(Layers(1), 0)
