"""A predicted step as the timeline that a run would leave: its tasks, its waiting, and who sends to whom.

Shapes: R ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wingspan.schedule.result import Operation, Span, StepSpan, Stream
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.schedule.schedule import Task
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.timeline import Timeline
from wingspan.specs.execution import DispatcherKind

_LEAST_WAIT = 1e-9
"""Shorter gaps, as a share of the step, are rounding."""


def predicted_timeline(prediction: Prediction, ranks: Sequence[int]) -> RunTimeline:
    """The step on some of its ranks; the peers of a transfer are among these."""
    timeline, phase = prediction.timeline, prediction.deployment.workload.phase
    spans = [
        span
        for rank in ranks
        for span in (*_tasks(prediction, rank, ranks), *_waits(timeline, rank))
        if span.end_seconds > span.start_seconds
    ]
    steps = [
        StepSpan(rank=rank, phase=phase, number=1, start_seconds=0.0, end_seconds=timeline.step_seconds)
        for rank in ranks
    ]
    return RunTimeline(spans, steps)


def _tasks(prediction: Prediction, rank: int, ranks: Sequence[int]) -> Iterator[Span]:
    timeline = prediction.timeline
    for n, task in enumerate(timeline.schedule.tasks):
        start, end = float(timeline.starts_NR[n, rank]), float(timeline.ends_NR[n, rank])
        begun = start + prediction.engine_seconds.get(task.operation, 0.0)
        for operation, since, until in ((Operation.ENGINE, start, begun), (task.operation, begun, end)):
            yield Span(
                rank=rank,
                stream=task.stream,
                operation=operation,
                start_seconds=since,
                end_seconds=until,
                layer=task.layer,
                micro_batch=task.micro_batch if timeline.schedule.micro_batches > 1 else None,
                chunk=task.chunk if timeline.schedule.chunks > 1 else None,
                peers=_peers(prediction, task, rank, ranks),
            )


def _peers(prediction: Prediction, task: Task, rank: int, ranks: Sequence[int]) -> tuple[int, ...]:
    """Those of `ranks` that rows may leave for: this rank sends so far, and they receive from so far.

    Rows of a hierarchical exchange cross between nodes on their own rail only.
    """
    if task.operation not in (Operation.DISPATCH, Operation.COMBINE) or task.layer is None:
        return ()
    moe, layer = prediction.moe, prediction.deployment.model.moe_layers.index(task.layer)
    traffic = moe.sent if task.operation is Operation.DISPATCH else moe.returned
    width = prediction.cluster.scale_up_domain_gpus
    by_rail = prediction.deployment.sending is DispatcherKind.HIERARCHICAL
    near = bool(traffic.scale_up_sent[layer, rank])
    far = bool(traffic.scale_out_sent[layer, rank])

    def reached(peer: int) -> bool:
        if peer // width == rank // width:
            return near and bool(traffic.scale_up_received[layer, peer])
        on_the_way = not by_rail or peer % width == rank % width
        return far and on_the_way and bool(traffic.scale_out_received[layer, peer])

    return tuple(peer for peer in ranks if peer != rank and reached(peer))


def _waits(timeline: Timeline, rank: int) -> Iterator[Span]:
    """What no task fills: neither computing nor a transfer."""
    order: NDArray[np.int64] = timeline.starts_NR[:, rank].argsort(kind="stable")
    free = 0.0
    for start, end in [
        *((float(timeline.starts_NR[n, rank]), float(timeline.ends_NR[n, rank])) for n in order),
        (timeline.step_seconds, timeline.step_seconds),
    ]:
        if start - free > _LEAST_WAIT * timeline.step_seconds:
            yield Span(
                rank=rank,
                stream=Stream.COMPUTE,
                operation=Operation.WAIT,
                start_seconds=free,
                end_seconds=start,
            )
        free = max(free, end)
