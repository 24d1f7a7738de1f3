"""Run a deployment on real links with paced compute, and predict the very same: slowed GPUs, drawn loads, these links.

Shapes: L MoE layers, E experts, R ranks, T tokens of a rank, K experts per token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.deployment import Deployment
from wingspan.placement.balanced import rank_load
from wingspan.report.units import bytes_text
from wingspan.routing.draws import draw_choices
from wingspan.routing.trace import RoutingTrace
from wingspan.runtime.dispatch.choice import DispatchOptions
from wingspan.runtime.measuring.report import step_report
from wingspan.runtime.measuring.timeline import run_timeline
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.paced import PacedStep, run_paced
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import LinkUse, StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.simulate.pace import ModelledPace
from wingspan.specs.cluster import Cluster
from wingspan.specs.emulation import on_links
from wingspan.specs.precision import Precision
from wingspan.specs.running import row_precision
from wingspan.specs.workload import RecordedRouting
from wingspan.testbed.counters import LinkCount, own_link
from wingspan.testbed.real import check_even
from wingspan.traffic.shares import expert_shares

_ROWS_HELD = 2
"""Measured: a rank's rows are held as they leave and as they came back, those of others as they arrive and leave."""
_CHOICE_BYTES = 2


def rank_bytes(deployment: Deployment) -> int:
    """What the fullest rank of a paced run takes for its rows, with its part of all tokens' choices.

    Raises:
        InputError: the ranks have unlike numbers of tokens, or the placement does not fit the model.
    """
    check_even(deployment)
    model, tokens = deployment.model, deployment.workload.tokens_per_gpu
    shares_LE = expert_shares(model, deployment.workload)
    load_LE = shares_LE * tokens * deployment.ranks
    arriving = float(rank_load(deployment.placement.build(shares_LE), load_LE).max())
    rows = _ROWS_HELD * (tokens * (1 + model.experts.per_token) + arriving)
    choices = tokens * len(model.moe_layers) * model.experts.per_token * 2 * _CHOICE_BYTES
    return round(rows * model.row_width * _row_dtype(deployment).itemsize + choices)


def choices(deployment: Deployment) -> NDArray[np.int16]:
    """Which experts every rank's tokens choose: (R, L, T, K), drawn by the workload's routing and seed."""
    check_even(deployment)
    shares_LE = expert_shares(deployment.model, deployment.workload)
    tokens, top_k = deployment.workload.tokens_per_gpu, deployment.model.experts.per_token
    return np.stack(
        [
            draw_choices(shares_LE, tokens, top_k, (deployment.workload.seed, rank)).astype(np.int16)
            for rank in range(deployment.ranks)
        ]
    )


def recorded(choices_RLTK: NDArray[np.int16], experts: int) -> RecordedRouting:
    """The choices as a routing, once for all ranks: forked ones share its memory."""
    loads_LE = [np.bincount(layer.ravel(), minlength=experts) for layer in choices_RLTK.swapaxes(0, 1)]
    return RecordedRouting(
        source="the run's own draw", loads=tuple(tuple(row.tolist()) for row in loads_LE)
    ).with_tokens(_trace(choices_RLTK, experts))


def emulated(
    given: Deployment, links: Cluster, ranks_per_node: int, time_scale: float, routing: RecordedRouting
) -> Deployment:
    """The deployment as it will run: its GPUs slowed, on these links, with exactly the loads that were drawn."""
    cluster = on_links(given.cluster, links, time_scale).model_copy(
        update={
            "nodes": given.ranks // ranks_per_node,
            "gpus_per_node": ranks_per_node,
            "scale_up_domain_gpus": ranks_per_node,
        }
    )
    workload = given.workload.model_copy(update={"routing": routing, "fluctuating": False})
    return given.model_copy(update={"cluster": cluster, "workload": workload})


def _trace(choices_RLTK: NDArray[np.int16], experts: int) -> RoutingTrace:
    """The same choices as a trace of one step: what links carry is then counted, not expected."""
    R, L, T, K = choices_RLTK.shape
    experts_TLK = choices_RLTK.swapaxes(1, 2).reshape(R * T, L, K)
    home_T = np.repeat(np.arange(R), T)
    return RoutingTrace(
        experts_TLK,
        home_T.astype(np.int32),
        home_T.astype(np.int32),
        np.zeros(R * T, dtype=np.int32),
        experts,
        R,
    )


def run_emulated(
    transport: Transport,
    deployment: Deployment,
    choices_RLTK: NDArray[np.int16],
    steps: int,
    *,
    keep_spans: bool = False,
    in_testbed: bool = False,
) -> tuple[StepReport, RunTimeline] | None:
    """Collective: paced steps of what `emulated` made; on rank 0 their report and timeline.

    Args:
        transport: the group.
        deployment: from `emulated`.
        choices_RLTK: of all tokens.
        steps: to measure, after one that warms up.
        keep_spans: also keep the timeline.
        in_testbed: ranks are in its nodes: the report then holds what the kernel counted on their links.
    """
    step, workload = paced_step(deployment, steps), deployment.workload
    rank = transport.world.rank
    pace = ModelledPace(deployment, step.flow.micro_batches, rank)
    before = _together(transport) if in_testbed else None
    experts_LTK = choices_RLTK[rank].astype(np.int64)
    measurement = run_paced(transport, step, pace, experts_LTK, workload.phase, keep_spans=keep_spans)
    carried = _together(transport).since(before) if before is not None else None
    gathered: Any = transport.gather((measurement, carried))
    if gathered is None:
        return None
    ranks = [each for each, _ in gathered]
    report = step_report(
        ranks, workload.phase, step.placement, transport.world, step.flow.name, source="paced"
    )
    if report is None:
        raise RuntimeError("no step was measured")
    if carried is not None:
        counts = [count for _, count in gathered[:: transport.world.ranks_per_node]]
        report = _with_kernel(report, counts, steps + 1, deployment.used_cluster)
    return report, run_timeline(ranks)


def paced_step(deployment: Deployment, steps: int) -> PacedStep:
    """The deployment's step as paced ranks execute it.

    Raises:
        InputError: rows in a format that ranks do not send.
    """
    model = deployment.model
    precisions = deployment.precisions
    dtype = _row_dtype(deployment)
    own = Precision.FP32 if dtype is torch.float32 else Precision.BF16
    rows = row_precision(precisions.dispatch, precisions.combine, own)
    flow = flow_named(
        deployment.options.schedule, shared_beside_dispatch=deployment.options.shared_beside_dispatch
    )
    return PacedStep(
        layers=model.layers,
        moe_layers=tuple(model.moe_layers),
        hidden=model.row_width,
        dtype=dtype,
        placement=deployment.build_placement(),
        shared_expert=model.experts.shared_intermediate > 0,
        flow=flow,
        dispatch=DispatchOptions(deployment.dispatcher, rows),
        steps=steps,
    )


def _row_dtype(deployment: Deployment) -> torch.dtype:
    return torch.float32 if deployment.precisions.combine is Precision.FP32 else torch.bfloat16


def _together(transport: Transport) -> LinkCount:
    """Collective: this node's counters while no rank sends."""
    transport.share(torch.zeros(1))
    count = own_link()
    transport.share(torch.zeros(1))
    return count


def _with_kernel(report: StepReport, counts: list[LinkCount], steps: int, cluster: Cluster) -> StepReport:
    """The report with what each node's link carried in so many steps, a step's mean."""
    sent_N = [count.sent_payload_bytes / steps for count in counts]
    rows, seconds = sum(report.sent_across_nodes_bytes), report.step_seconds
    link = LinkUse(
        link="across nodes, counted by the kernel",
        busiest_bytes=max(sent_N),
        total_bytes=sum(sent_N),
        utilisation=max(sent_N) / cluster.scale_out.bandwidth_bytes_per_second / seconds,
    )
    beside = f", {sum(sent_N) / rows - 1:+.1%} beside the rows" if rows else ""
    note = f"the kernel counted {bytes_text(sum(sent_N))} a step across nodes{beside}: headers taken off"
    return report.model_copy(update={"links": [*report.links, link], "notes": [*report.notes, note]})
