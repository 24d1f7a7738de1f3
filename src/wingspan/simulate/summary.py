"""Sum a prediction up as a `StepReport`.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank, N tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.balanced import rank_load
from wingspan.routing.load import imbalance
from wingspan.schedule.result import LinkUse, Operation, StepReport
from wingspan.schedule.schedule import COLLECTIVES, COMMUNICATION
from wingspan.schedule.slowest import slowest
from wingspan.simulate.error_bar import error_bar, rests_on
from wingspan.simulate.memory import memory_use
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.timeline import Timeline
from wingspan.specs.execution import ScheduleKind
from wingspan.specs.precision import wider
from wingspan.specs.workload import USUAL_ACCEPTANCE, routing_remarks
from wingspan.traffic.links import Traffic, by_network_card
from wingspan.traffic.shares import expert_shares

Array = NDArray[np.float64]

_MEASURED = " (assumed; DeepSeek-V3's second tokens: 85 to 90 %, arXiv:2412.19437, section 5.4.3)"
_SHOWN = 0.005
"""The least part of a ratio that shows with two decimals."""
_UNREAD = 0.05
"""Share of slots without rows from which the output says so."""
_ROUNDING = 1e-12
"""What sums of a step's tasks are off by, as a share of it."""


def step_report(prediction: Prediction) -> StepReport:
    """Every figure of the predicted step."""
    deployment, timeline = prediction.deployment, prediction.timeline
    step = timeline.step_seconds
    times, hidden = _times(timeline)
    for within, seconds in prediction.engine_seconds.items():
        added = seconds * sum(task.operation is within for task in timeline.schedule.tasks)
        times[within] = times[within] - added
        times[Operation.ENGINE] = times.get(Operation.ENGINE, np.zeros(deployment.ranks)) + added
    spent = {operation: seconds - hidden.get(operation, 0.0) for operation, seconds in times.items()}
    exposed_R = np.sum([spent[op] for op in times if op in COMMUNICATION or op is Operation.WAIT], axis=0)
    sent, back = prediction.moe.sent, prediction.moe.returned
    memory = memory_use(deployment, prediction.placement, prediction.arrived_LR.max(axis=0))
    tokens, gained = deployment.tokens, deployment.gained_tokens
    rank, operation, reason = slowest(spent)
    if operation is Operation.EXPERT:
        reason += _hottest(prediction, rank)
    return StepReport(
        source="predicted",
        phase=deployment.workload.phase,
        ranks=deployment.ranks,
        ranks_per_node=min(prediction.cluster.scale_up_domain_gpus, deployment.ranks),
        experts_per_rank=prediction.placement.slots_per_rank,
        schedule=timeline.schedule.name,
        tokens=tokens,
        step_seconds=step,
        tokens_per_second=gained / step,
        operation_seconds={operation: seconds.tolist() for operation, seconds in times.items()},
        hidden_seconds={operation: seconds.tolist() for operation, seconds in hidden.items()},
        exposed_communication_seconds=exposed_R.tolist(),
        sent_within_node_bytes=_whole(sent.scale_up_sent, back.scale_up_sent),
        sent_across_nodes_bytes=_whole(sent.scale_out_sent, back.scale_out_sent),
        received_within_node_bytes=_whole(sent.scale_up_received, back.scale_up_received),
        received_across_nodes_bytes=_whole(sent.scale_out_received, back.scale_out_received),
        load_tokens=prediction.load_LE.tolist(),
        imbalance=imbalance(prediction.load_LE),
        memory_bytes={name: _integers(size_R) for name, size_R in memory.parts.items()},
        peak_memory_bytes=_integers(memory.total_R),
        links=_links(prediction, step),
        utilisation=_utilisation(prediction, step),
        relative_error=error_bar(prediction, times, rank),
        rests_on=rests_on(prediction),
        slowest_rank=rank,
        slowest_reason=reason,
        notes=_notes(prediction, memory.fits, memory.breaking_part),
    )


def _times(timeline: Timeline) -> tuple[dict[Operation, Array], dict[Operation, Array]]:
    """Per operation and rank, as in a `StepReport`: when it runs, and of transfers what is hidden."""
    used = {task.operation for task in timeline.schedule.tasks}
    times = {operation: timeline.busy_seconds(operation) for operation in Operation if operation in used}
    hidden = {op: timeline.hidden_seconds(op) for op in times if op in COMMUNICATION}
    occupied_R = sum(times.values(), np.zeros(1)) - sum(hidden.values(), np.zeros(1))
    idle_R, step = timeline.step_seconds - occupied_R, timeline.step_seconds
    times[Operation.WAIT] = np.where(idle_R > _ROUNDING * step, idle_R, 0.0)
    return times, hidden


def _whole(out_LR: Array, back_LR: Array) -> list[int]:
    return _integers((out_LR + back_LR).sum(axis=0))


def _integers(values: Array) -> list[int]:
    """Rounded; Python's integers, which do not overflow."""
    return [int(value) for value in np.rint(values).tolist()]


def _links(prediction: Prediction, step: float) -> list[LinkUse]:
    cluster = prediction.cluster
    levels = [
        ("scale-up", cluster.scale_up.bandwidth_bytes_per_second, _used(prediction, "scale_up")),
        ("scale-out", cluster.scale_out.bandwidth_bytes_per_second, _used(prediction, "scale_out")),
    ]
    if cluster.racks is not None and prediction.moe.sent.rack_sent.shape[-1]:
        cards = cluster.racks.nodes_per_rack * cluster.network_cards_per_node
        way_up = cluster.scale_out.bandwidth_bytes_per_second * cards / cluster.racks.oversubscription
        levels.append(("rack", way_up, _used(prediction, "rack")))
    return [
        LinkUse(link=name, busiest_bytes=busiest, total_bytes=total, utilisation=busiest / bandwidth / step)
        for name, bandwidth, (busiest, total) in levels
        if total
    ]


def _used(prediction: Prediction, level: str) -> tuple[float, float]:
    """Bytes through the level's most loaded member in its busier direction, and through all members."""

    def through(traffic: Traffic, direction: str) -> Array:
        bytes_R = np.asarray(getattr(traffic, f"{level}_{direction}").sum(axis=0))
        return by_network_card(prediction.cluster, bytes_R) if level == "scale_out" else bytes_R

    sent = through(prediction.moe.sent, "sent") + through(prediction.moe.returned, "sent")
    received = through(prediction.moe.sent, "received") + through(prediction.moe.returned, "received")
    return float(np.maximum(sent, received).max(initial=0.0)), float(sent.sum())


def _utilisation(prediction: Prediction, step: float) -> dict[str, float]:
    gpu, experts = prediction.cluster.gpu, prediction.deployment.precisions.experts
    peak = gpu.peak_flops[wider(experts.activations, experts.weights).arithmetic]
    moved = prediction.moved_bytes_R.mean() / step
    return {
        "compute": float(prediction.flops_R.mean() / step / peak),
        "memory bandwidth": float(moved / gpu.memory_bandwidth_bytes_per_second),
    }


def _hottest(prediction: Prediction, rank: int) -> str:
    rows_LR = prediction.rows_LRS.sum(axis=2)
    layer = int((rows_LR[:, rank] / rows_LR.mean(axis=1)).argmax())
    hottest = rows_LR[layer, rank] / rows_LR[layer].mean()
    return f" (its experts get up to {hottest:.2f} x the mean load, in MoE layer {layer})"


def _chance(prediction: Prediction) -> str:
    """How much of the ranks' imbalance the draw itself makes, where it makes some."""
    deployment, rows_LR = prediction.deployment, prediction.rows_LRS.sum(axis=2)
    shares_LE = expert_shares(deployment.model, deployment.workload)
    expected = imbalance(rank_load(prediction.placement, shares_LE))
    drawn = imbalance(rows_LR)
    if drawn - expected < _SHOWN:
        return ""
    share = (drawn - expected) / (drawn - 1)
    return (
        f": the fullest rank has {drawn:.2f} x the mean, of which chance makes {drawn - expected:.2f}: {share:.0%} of "
        "the excess that the others wait for"
    )


def _contention(prediction: Prediction) -> list[str]:
    """How computing and transfers slow each other, by the kinds of transfers that there are."""
    contention, moe = prediction.cluster.kernels.contention, prediction.moe
    alone = moe.dispatch.processor_seconds is not None
    others = any(task.operation in COLLECTIVES for task in prediction.timeline.schedule.tasks)
    found = []
    if alone:
        found.append(
            "beside computing, dispatch and combine take processors only while they send and receive "
            "(docs/cost-model.md, Contention)"
        )
    slowed = max(contention.compute_slowdown, contention.communication_slowdown) > 1
    if slowed and (others or not alone):
        found.append(
            f"where they overlap, computing takes {contention.compute_slowdown:g} x and "
            f"{'collectives' if alone else 'communicating'} {contention.communication_slowdown:g} x as long "
            "(docs/cost-model.md, Contention)"
        )
    return found


def _notes(prediction: Prediction, fits: bool, breaking: str | None) -> list[str]:
    deployment = prediction.deployment
    notes = []
    if not fits:
        notes.append(f"does not fit: GPU memory overflows with {breaking}")
    if prediction.cluster.kernels.accuracy:
        reached = (
            each
            for each in prediction.cluster.extrapolations.values()
            if not each.across_domains or deployment.ranks > prediction.cluster.scale_up_domain_gpus
        )
        notes.extend(f"the error bar is wider: {each.because}" for each in reached)
    if prediction.timeline.overlaps:
        notes.extend(_contention(prediction))
    notes.extend((*deployment.model.remarks, *deployment.precisions.remarks))
    if (work := deployment.workload).tried_per_sequence > 1:
        notes.append(
            f"{work.mtp_tokens} token{'s' * (work.mtp_tokens > 1)} tried ahead: at an acceptance of "
            f"{work.acceptance:.0%}{_MEASURED * (work.acceptance == USUAL_ACCEPTANCE)} a step gives each sequence "
            f"{work.gained_per_sequence:.2f} tokens, which tokens/s count; bytes of links are those of the model's own "
            "layers"
        )
    domain = prediction.cluster.scale_up_domain_gpus
    if prediction.timeline.schedule.name == ScheduleKind.FUSED and deployment.ranks > domain:
        notes.append(f"no published kernel fuses a layer over more than one domain, here {domain} GPUs")
    if deployment.options.expert_tensor_parallel > 1:
        notes.append(
            "bytes of links are those of dispatch and combine: what ranks that share attention or experts gather and "
            "sum is in the times alone"
        )
    idle = 1 - float(np.minimum(prediction.rows_LRS, 1.0).sum() / (prediction.placement.slots_LRS >= 0).sum())
    if idle > _UNREAD:
        notes.append(
            f"{idle:.0%} of the experts' slots get no row and are not read: more skew leaves more of them unread, and "
            "may be faster at so small a batch"
        )
    if deployment.workload.fluctuating:
        notes.append(f"loads are one draw from the routing's shares (workload.seed){_chance(prediction)}")
    notes.extend((*routing_remarks(deployment.workload.routing), *deployment.placement.remarks))
    if prediction.placement.slots_per_rank == 1 and prediction.placement.replicas_LE.max() == 1:
        notes.append(
            "one slot per rank: moving experts cannot lower the fullest rank's load; only replicas or more slots can"
        )
    return notes
