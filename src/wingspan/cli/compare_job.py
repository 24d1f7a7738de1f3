"""The work behind `wingspan compare`.

Shapes: L MoE layers, E experts, R ranks, T tokens of a rank, K experts per token.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.cli.runtime_import import import_runtime
from wingspan.deployment import Deployment, Dispatcher, ScheduleKind, load_deployment
from wingspan.errors import InputError
from wingspan.routing.draws import draw_choices
from wingspan.routing.workload_shares import expert_shares
from wingspan.schedule.result import StepReport
from wingspan.simulate.pace import Pace
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.emulation import on_links
from wingspan.specs.workload import RecordedRouting


@dataclass(frozen=True)
class Arguments:
    """The command line of `wingspan compare`."""

    deployment: Path
    links: Path | None
    time_scale: float
    ranks_per_node: int | None
    steps: int
    transport: str
    trace: Path | None
    as_json: bool


def execute(arguments: Arguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    given = load_deployment(arguments.deployment)
    links = None if arguments.links is None else load_cluster(str(arguments.links))
    if given.options.attention_ranks > 1:
        raise InputError(
            f"{arguments.deployment}: attention_ranks {given.options.attention_ranks}: paced runs have "
            "data-parallel attention; set it to 1"
        )
    if arguments.trace is not None and not arguments.trace.absolute().parent.is_dir():
        raise InputError(f"--trace {arguments.trace}: its folder does not exist; create it")
    choices_RLTK = choices(given)
    runtime = import_runtime()
    group = runtime.Group.find(os.environ, given.ranks, arguments.ranks_per_node, arguments.transport)

    def work(transport: Any) -> None:
        found = links or runtime.with_links(given.cluster, runtime.measure_links(transport, group.device))
        on_them = emulated(given, found, transport.world.ranks_per_node, arguments.time_scale, choices_RLTK)
        measured = run_paced(runtime, transport, on_them, choices_RLTK, arguments)
        if measured is not None:
            _finish(predict(on_them), *measured, arguments)

    group.run(work)


def choices(deployment: Deployment) -> NDArray[np.int64]:
    """Which experts every rank's tokens choose: (R, L, T, K), drawn by the workload's routing and seed."""
    shares_LE = expert_shares(deployment.model, deployment.workload)
    tokens, top_k = deployment.workload.tokens_per_gpu, deployment.model.experts.per_token
    return np.stack(
        [
            draw_choices(shares_LE, tokens, top_k, (deployment.workload.seed, rank))
            for rank in range(deployment.ranks)
        ]
    )


def emulated(
    given: Deployment,
    links: Cluster,
    ranks_per_node: int,
    time_scale: float,
    choices_RLTK: NDArray[np.int64],
) -> Deployment:
    """The deployment as it will run: its GPUs slowed, on these links, with exactly the loads that were drawn."""
    E = given.model.experts.count
    loads_LE = np.stack([np.bincount(layer.ravel(), minlength=E) for layer in choices_RLTK.swapaxes(0, 1)])
    routing = RecordedRouting(source="the run's own draw", loads=tuple(map(tuple, loads_LE.tolist())))
    cluster = on_links(given.cluster, links, time_scale).model_copy(
        update={
            "nodes": given.ranks // ranks_per_node,
            "gpus_per_node": ranks_per_node,
            "scale_up_domain_gpus": ranks_per_node,
        }
    )
    workload = given.workload.model_copy(update={"routing": routing, "fluctuating": False})
    return given.model_copy(update={"cluster": cluster, "workload": workload})


def run_paced(
    runtime: Any,
    transport: Any,
    deployment: Deployment,
    choices_RLTK: NDArray[np.int64],
    arguments: Arguments,
) -> tuple[StepReport, list[Any]] | None:
    """Collective: the paced steps; on rank 0 their report and spans."""
    model, workload, options = deployment.model, deployment.workload, deployment.options
    schedule = {
        ScheduleKind.SEQUENTIAL: "sequential",
        ScheduleKind.CHUNKS: f"chunks={options.chunks}",
        ScheduleKind.TWO_BATCH: "two-batch",
    }[options.schedule]
    flow = runtime.flow_named(schedule)
    hierarchical = deployment.dispatcher is Dispatcher.HIERARCHICAL
    step = runtime.PacedStep(
        layers=model.layers,
        moe_layers=tuple(model.moe_layers),
        hidden=model.hidden,
        dtype=runtime.dtype_named("bfloat16"),
        placement=deployment.build_placement(),
        shared_expert=model.experts.shared_intermediate > 0,
        flow=flow,
        dispatch=runtime.dispatch_options("hierarchical" if hierarchical else "flat", "same"),
        steps=arguments.steps,
    )
    rank = transport.world.rank
    measurement = runtime.run_paced(
        transport,
        step,
        Pace(deployment, flow.micro_batches, rank),
        choices_RLTK[rank],
        workload.phase,
        keep_spans=arguments.trace is not None,
    )
    ranks = transport.gather(measurement)
    if ranks is None:
        return None
    report = runtime.step_report(
        ranks, workload.phase, step.placement, transport.world, flow.name, source="paced"
    )
    return report, [span for r in ranks for span in r.spans]


def _finish(prediction: Prediction, measured: StepReport, spans: list[Any], arguments: Arguments) -> None:
    """On rank 0: traces and tables."""
    from wingspan.cli.compare_view import print_json, show
    from wingspan.report.perfetto import write_trace

    predicted = step_report(prediction)
    if arguments.trace is not None:
        folder, name = arguments.trace.parent, arguments.trace.name
        ranks = range(min(8, predicted.ranks))
        write_trace(prediction.timeline.spans(ranks), folder / f"{name}-predicted.json")
        write_trace([s for s in spans if s.rank in ranks], folder / f"{name}-measured.json")
    if arguments.as_json:
        print_json(predicted, measured)
    else:
        show(prediction.deployment, predicted, measured, arguments.trace)
