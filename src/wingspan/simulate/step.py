"""Predict one step of a deployment: `simulate(deployment)` gives the `StepReport` that a run would fill.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank, X = R x S slots, P parts of a step, N tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.cost.exchange import (
    Collective,
    Phase,
    all_reduce_seconds,
    collective_seconds,
    streaming_seconds,
)
from wingspan.cost.layer import LayerCost, LayerSizes, layer_cost
from wingspan.deployment import Deployment
from wingspan.routing.shares import draw_loads
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COLLECTIVES, Schedule, Task
from wingspan.simulate.drafts import joining_seconds, passes
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.summary import step_report
from wingspan.simulate.timeline import Lag, execute
from wingspan.simulate.work import Cost, Work, active_slots
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.placement import Placement
from wingspan.traffic.layers import LayerTraffic
from wingspan.traffic.shares import expert_shares

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
    shares_LE = expert_shares(model, workload)
    placement = deployment.placement.build(shares_LE) if placement is None else placement
    schedule = deployment.build_schedule()
    parts = schedule.micro_batches * schedule.chunks
    loads_PLE = _loads(deployment, shares_LE, parts)
    load_LE = loads_PLE.sum(axis=0)
    traffic = deployment.traffic(placement, load_LE)
    cut = deployment.options.expert_tensor_parallel
    shape = LayerSizes.of(
        model,
        deployment.precisions,
        workload.phase,
        cut,
        dispatcher=deployment.sending,
        replicated=deployment.replicated,
        engine_sums=deployment.fuses_sums,
    )
    rows_PLRS = _slot_rows(placement, loads_PLE, traffic)
    active_PLRS = active_slots(deployment, rows_PLRS)
    moe = layer_cost(cluster, shape, traffic, deployment.dispatcher, rows_PLRS, active_PLRS)
    group_seconds = _group_seconds(deployment, cluster, schedule)
    if deployment.replicated and deployment.placement.ranks > 1:
        # Each rank has all tokens and computes its own experts' share of their sums.
        everything = np.broadcast_to(group_seconds[Operation.ALL_REDUCE].max(), moe.reduce_L.shape)
        moe = replace(moe, sent=moe.sent.scaled(0), returned=moe.returned.scaled(0), reduce_L=everything)
    rows_PLRS, active_PLRS = (np.repeat(each, cut, axis=2) for each in (rows_PLRS, active_PLRS))
    work = Work(deployment, cluster, schedule.micro_batches)
    prices = _Prices(
        deployment,
        schedule,
        work,
        work.experts(rows_PLRS, moe.experts_PLR, active_PLRS),
        {
            Operation.DISPATCH: moe.dispatch.seconds,
            Operation.COMBINE: moe.combine.seconds,
            Operation.ALL_GATHER: moe.gather_L,
            Operation.REDUCE_SCATTER: moe.reduce_L,
            Operation.ALL_REDUCE: moe.reduce_L,
        },
        group_seconds,
        _drafts(deployment),
    )
    costs = [prices.of(task) for task in schedule.tasks]
    held_L = _held(cluster, moe, schedule)
    groups = [_group(task, deployment) for task in schedule.tasks]
    return Prediction(
        deployment=deployment,
        cluster=cluster,
        placement=placement,
        timeline=execute(
            schedule,
            [c.seconds for c in costs],
            groups,
            cluster.kernels.contention,
            _processors(schedule, model.moe_layers, held_L),
            _lags(schedule, model, moe, rows_PLRS),
        ),
        engine_seconds=work.engine_seconds,
        rows_LRS=rows_PLRS.sum(axis=0),
        load_LE=load_LE,
        arrived_LR=np.repeat(traffic.arrived_LR, cut, axis=1),
        moe=moe,
        flops_R=np.sum([c.flops for c in costs], axis=0),
        moved_bytes_R=np.sum([c.moved_bytes for c in costs], axis=0),
    )


def _drafts(deployment: Deployment) -> Cost:
    """What predicts the tokens that the next step tries: passes of one layer, each a step of its own."""
    nothing_R = np.zeros(deployment.ranks)
    total = Cost(nothing_R, nothing_R, nothing_R)
    if deployment.workload.tried_per_sequence == 1 or not deployment.model.mtp_layers:
        return total
    for each in passes(deployment):
        found = predict(each)
        seconds = found.timeline.step_seconds + joining_seconds(each)
        total = total + Cost(nothing_R + seconds, found.flops_R, found.moved_bytes_R)
    return total


def _loads(deployment: Deployment, shares_LE: Array, parts: int) -> Array:
    """Tokens per expert in each part of the step: (parts, L, E)."""
    tokens = deployment.tokens
    if not deployment.workload.fluctuating:
        return np.repeat((shares_LE * (tokens / parts))[None], parts, axis=0)
    return draw_loads(shares_LE, tokens, parts, deployment.workload.seed)


def _slot_rows(placement: Placement, loads_PLE: Array, traffic: LayerTraffic) -> Array:
    """Rows that each slot computes in each part: of its expert's load there the share that it has of the whole."""
    slots_LX = np.maximum(placement.slots_LRS.reshape(placement.num_layers, -1), 0)
    rows_LX = traffic.slot_rows_LRS.reshape(slots_LX.shape)
    layers, experts = loads_PLE.shape[1:]
    place_LX = np.arange(layers)[:, None] * experts + slots_LX
    whole_LE = np.bincount(place_LX.ravel(), rows_LX.ravel(), layers * experts).reshape(layers, experts)
    share_LX = rows_LX / np.maximum(np.take_along_axis(whole_LE, slots_LX, axis=1), 1e-300)
    rows_PLX = np.take_along_axis(loads_PLE, slots_LX[None], axis=2) * share_LX
    return rows_PLX.reshape(len(loads_PLE), *placement.slots_LRS.shape)


def _group_seconds(deployment: Deployment, cluster: Cluster, schedule: Schedule) -> dict[Operation, Array]:
    """Time (R,) in which a tensor-parallel group gathers its tokens, and scatters or reduces their sums."""
    group = deployment.options.attention_ranks
    if group == 1:
        return {}
    tokens_R = deployment.of_attention_group(deployment.tokens_R) / schedule.micro_batches
    whole_R = tokens_R * deployment.model.hidden * 2.0  # BF16
    return {
        Operation.ALL_GATHER: collective_seconds(cluster, Collective.ALL_GATHER, whole_R, group),
        Operation.REDUCE_SCATTER: collective_seconds(cluster, Collective.REDUCE_SCATTER, whole_R, group),
        Operation.ALL_REDUCE: all_reduce_seconds(cluster, whole_R, group, engine=deployment.fuses_sums),
    }


def _held(cluster: Cluster, moe: LayerCost, schedule: Schedule) -> dict[Operation, Array | None]:
    """How long each layer's exchanges hold the processors: (L,) alike on all ranks, or (L, R)."""
    found = {
        Operation.DISPATCH: moe.dispatch.processor_seconds,
        Operation.COMBINE: moe.combine.processor_seconds,
    }
    behind = {task.operation for task in schedule.tasks if task.behind is not None}
    if Operation.COMBINE in behind:
        found[Operation.COMBINE] = streaming_seconds(cluster, moe.returned, Phase.COMBINE)
    if Operation.EXPERT in behind:
        found[Operation.DISPATCH] = streaming_seconds(cluster, moe.sent, Phase.DISPATCH)
    return found


def _processors(
    schedule: Schedule, moe_layers: Sequence[int], held_L: Mapping[Operation, Array | None]
) -> dict[int, Array]:
    """Seconds in which each exchange holds the processors, by the number of its task; none where nobody knows."""
    place = {layer: index for index, layer in enumerate(moe_layers)}
    found = {}
    for number, task in enumerate(schedule.tasks):
        seconds_L = None if task.of_experts or task.layer is None else held_L.get(task.operation)
        if seconds_L is not None and task.layer is not None:
            found[number] = seconds_L[place[task.layer]]
    return found


def _lags(schedule: Schedule, model: ModelSpec, moe: LayerCost, rows_PLRS: Array) -> dict[int, Lag]:
    """How far tasks are behind those whose results they take, an expert's rows a piece (`STREAMED`)."""
    place = {layer: index for index, layer in enumerate(model.moe_layers)}
    down = 1 / model.experts.matrices
    found = {}
    for number, task in enumerate(schedule.tasks):
        if task.behind is None or task.layer is None:
            continue
        layer = place[task.layer]
        # A rank works on one of its experts after the other; one without rows is none.
        pieces_R = np.maximum(np.minimum(rows_PLRS[0, layer], 1.0).sum(axis=1), 1.0)
        computing_R = moe.experts_PLR[0, layer]
        moving = moe.combine if task.operation is Operation.COMBINE else moe.dispatch
        latency = moving.latency_seconds[layer]
        piece_R = latency + (moving.seconds[layer] - latency) / pieces_R
        if task.operation is Operation.COMBINE:
            found[number] = Lag(computing_R * (1 - down + down / pieces_R), piece_R)
        else:
            found[number] = Lag(piece_R, computing_R / pieces_R)
    return found


def _group(task: Task, deployment: Deployment) -> int:
    """How many neighbouring ranks meet in a task."""
    if task.operation in (Operation.DISPATCH, Operation.COMBINE):
        return deployment.ranks
    if task.operation in COLLECTIVES:
        options = deployment.options
        return deployment.summing_ranks if task.of_experts else options.attention_ranks
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
        group_seconds: dict[Operation, Array],
        drafts: Cost,
    ) -> None:
        model = deployment.model
        self._nothing_R = np.zeros(deployment.ranks)
        self._chunks = schedule.chunks
        self._moe_index = {layer: index for index, layer in enumerate(model.moe_layers)}
        self._experts_PLR = experts_PLR
        self._transfers = transfers
        self._order = model.order
        self._of_kind = {
            (operation, number): self._whole(cost)
            for number, kind in enumerate(model.kinds)
            for operation, cost in work.of_kind(kind).items()
        }
        self._alike = {
            Operation.EMBED: self._whole(work.embed()),
            Operation.GATE: self._whole(work.gate()),
            Operation.SHARED_EXPERT: self._whole(work.shared_expert()),
            Operation.HEAD: self._whole(work.head()),
            Operation.DRAFT: drafts,
            **{operation: self._transfer(seconds) for operation, seconds in group_seconds.items()},
        }

    def of(self, task: Task) -> Cost:
        """(R,) seconds, arithmetic and memory traffic."""
        if task.operation in self._alike and not task.of_experts:
            return self._alike[task.operation]
        layer = -1 if task.layer is None else task.layer
        if task.operation in (Operation.ATTENTION, Operation.DENSE):
            return self._of_kind[task.operation, self._order[layer]]
        if task.operation is Operation.EXPERT:
            where = (task.micro_batch * self._chunks + task.chunk, self._moe_index[layer])
            cost = self._experts_PLR
            return Cost(cost.seconds[where], cost.flops[where], cost.moved_bytes[where])
        return self._transfer(self._transfers[task.operation][self._moe_index[layer]])

    def _whole(self, cost: Cost) -> Cost:
        return Cost(
            cost.seconds + self._nothing_R, cost.flops + self._nothing_R, cost.moved_bytes + self._nothing_R
        )

    def _transfer(self, seconds: ArrayLike) -> Cost:
        nothing = self._nothing_R
        return Cost(np.asarray(seconds, np.float64) + nothing, nothing, nothing)
