"""Predict one step of a deployment: `simulate(deployment)` gives the `StepReport` that a run would fill.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank, X = R x S slots, P parts of a step, N tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.exchange import (
    Collective,
    Exchange,
    Method,
    Phase,
    Traffic,
    collective_seconds,
    exchange_seconds,
    row_bytes,
)
from wingspan.deployment import Deployment, Dispatcher
from wingspan.placement.placement import Placement
from wingspan.routing.shares import draw_loads
from wingspan.routing.workload_shares import expert_shares
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import Schedule, Task
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.summary import step_report
from wingspan.simulate.timeline import execute
from wingspan.simulate.traffic import Routes, arrived_rows, routes, traffic
from wingspan.simulate.work import Cost, Work
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import HeadAttention

Array = NDArray[np.float64]


def simulate(deployment: Deployment) -> StepReport:
    """Predict one step.

    Raises:
        InputError: the placement does not fit the model, or the ranks do not fill whole nodes.
    """
    return step_report(predict(deployment))


def predict(deployment: Deployment, placement: Placement | None = None) -> Prediction:
    """Predict one step and keep its timeline.

    Args:
        deployment: what runs.
        placement: the deployment's, if it is at hand already.

    Raises:
        InputError: as `simulate`.
    """
    cluster, model, workload = deployment.used_cluster, deployment.model, deployment.workload
    placement = deployment.build_placement() if placement is None else placement
    schedule = deployment.build_schedule()
    method = exchange_method(deployment)
    parts = schedule.micro_batches * schedule.chunks
    tokens = workload.tokens_per_gpu * deployment.ranks
    loads_PLE = _loads(deployment, tokens, parts)
    load_LE = loads_PLE.sum(axis=0)
    way = routes(placement, np.minimum(load_LE / tokens, 1.0), model.experts, cluster)
    rows_PLRS = _slot_rows(placement, loads_PLE, way)
    arrived_LR = arrived_rows(way, workload.tokens_per_gpu, method)
    precisions = workload.precisions(model)
    out = row_bytes(model.hidden, precisions.dispatch)
    back = row_bytes(model.hidden, precisions.combine)
    sent = traffic(cluster, way, workload.tokens_per_gpu, out, method)
    dispatch = exchange_seconds(cluster, _scaled(sent, 1 / parts), method)
    combine = exchange_seconds(cluster, _scaled(sent.back(back / out), 1 / parts), method, Phase.COMBINE)
    work = Work(deployment, cluster, schedule.micro_batches)
    prices = _Prices(
        deployment,
        schedule,
        work,
        work.experts(rows_PLRS, arrived_LR),
        _exchanges(deployment, dispatch, combine),
        _group_seconds(deployment, cluster, schedule),
    )
    costs = [prices.of(task) for task in schedule.tasks]
    groups = [_group(task, deployment) for task in schedule.tasks]
    return Prediction(
        deployment=deployment,
        cluster=cluster,
        placement=placement,
        timeline=execute(schedule, [c.seconds for c in costs], groups, cluster.kernels.contention),
        rows_LRS=rows_PLRS.sum(axis=0),
        load_LE=load_LE,
        arrived_LR=arrived_LR,
        sent=sent,
        returned=sent.back(back / out),
        dispatch=dispatch,
        combine=combine,
        flops_R=np.sum([c.flops for c in costs], axis=0),
        moved_bytes_R=np.sum([c.moved_bytes for c in costs], axis=0),
    )


def _exchanges(deployment: Deployment, dispatch: Exchange, combine: Exchange) -> dict[Operation, Array]:
    """Seconds of each layer's; a rank that has nobody to talk to launches nothing."""
    alone = 0.0 if deployment.ranks == 1 else 1.0
    return {Operation.DISPATCH: dispatch.seconds * alone, Operation.COMBINE: combine.seconds * alone}


def exchange_method(deployment: Deployment) -> Method:
    """The kernels behind a dispatcher."""
    return Method.NORMAL if deployment.dispatcher is Dispatcher.HIERARCHICAL else Method.LOW_LATENCY


def _loads(deployment: Deployment, tokens: int, parts: int) -> Array:
    shares_LE = expert_shares(deployment.model, deployment.workload)
    if not deployment.workload.fluctuating:
        return np.repeat((shares_LE * (tokens / parts))[None], parts, axis=0)
    return draw_loads(shares_LE, tokens, parts, deployment.workload.seed)


def _slot_rows(placement: Placement, loads_PLE: Array, way: Routes) -> Array:
    slots_LX = np.maximum(placement.slots_LRS.reshape(placement.num_layers, -1), 0)
    rows_PLX = np.take_along_axis(loads_PLE, slots_LX[None], axis=2) * way.share_LX
    return rows_PLX.reshape(*rows_PLX.shape[:2], placement.num_ranks, placement.slots_per_rank)


def _scaled(traffic: Traffic, factor: float) -> Traffic:
    return Traffic(
        *(
            level * factor
            for level in (
                traffic.scale_up_sent,
                traffic.scale_up_received,
                traffic.scale_out_sent,
                traffic.scale_out_received,
                traffic.rack_sent,
                traffic.rack_received,
            )
        )
    )


def _group_seconds(deployment: Deployment, cluster: Cluster, schedule: Schedule) -> dict[Operation, float]:
    """Time in which a tensor-parallel group gathers its tokens, and scatters their sums."""
    group = deployment.options.attention_ranks
    tokens = deployment.workload.tokens_per_gpu / schedule.micro_batches * group
    whole = tokens * deployment.model.hidden * 2.0  # BF16
    return {
        operation: float(collective_seconds(cluster, kind, whole, group))
        for operation, kind in (
            (Operation.ALL_GATHER, Collective.ALL_GATHER),
            (Operation.REDUCE_SCATTER, Collective.REDUCE_SCATTER),
        )
    }


def _group(task: Task, deployment: Deployment) -> int:
    """How many neighbouring ranks meet in a task."""
    if task.operation in (Operation.DISPATCH, Operation.COMBINE):
        return deployment.ranks
    if task.operation in (Operation.ALL_GATHER, Operation.REDUCE_SCATTER):
        return deployment.options.attention_ranks
    return 1


class _Prices:
    """The cost of each task on each rank when it has the GPU for itself."""

    def __init__(
        self,
        deployment: Deployment,
        schedule: Schedule,
        work: Work,
        experts_PLR: Cost,
        transfers: dict[Operation, Array],
        group_seconds: dict[Operation, float],
    ) -> None:
        model = deployment.model
        self._ranks = deployment.ranks
        self._chunks = schedule.chunks
        self._moe_index = {layer: index for index, layer in enumerate(model.moe_layers)}
        self._experts_PLR = experts_PLR
        self._transfers = transfers
        attention = model.attention
        self._windowed = frozenset(attention.windowed_layers if isinstance(attention, HeadAttention) else ())
        self._attention = {
            windowed: self._whole(work.attention(windowed=windowed))
            for windowed in {layer in self._windowed for layer in range(model.layers)}
        }
        self._alike = {
            Operation.EMBED: self._whole(work.embed()),
            Operation.DENSE: self._whole(work.dense()),
            Operation.GATE: self._whole(work.gate()),
            Operation.SHARED_EXPERT: self._whole(work.shared_expert()),
            Operation.HEAD: self._whole(work.head()),
            **{operation: self._transfer(seconds) for operation, seconds in group_seconds.items()},
        }

    def of(self, task: Task) -> Cost:
        """(R,) seconds, arithmetic and memory traffic."""
        if task.operation in self._alike:
            return self._alike[task.operation]
        layer = -1 if task.layer is None else task.layer
        if task.operation is Operation.ATTENTION:
            return self._attention[layer in self._windowed]
        if task.operation is Operation.EXPERT:
            where = (task.micro_batch * self._chunks + task.chunk, self._moe_index[layer])
            cost = self._experts_PLR
            return Cost(cost.seconds[where], cost.flops[where], cost.moved_bytes[where])
        return self._transfer(self._transfers[task.operation][self._moe_index[layer]])

    def _whole(self, cost: Cost) -> Cost:
        shape = (self._ranks,)
        return Cost(
            np.broadcast_to(cost.seconds, shape),
            np.broadcast_to(cost.flops, shape),
            np.broadcast_to(cost.moved_bytes, shape),
        )

    def _transfer(self, seconds: float) -> Cost:
        nothing = np.zeros(self._ranks)
        return Cost(np.full(self._ranks, seconds), nothing, nothing)
