"""The work behind `wingspan compare`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wingspan.cli.compare_real import compare_real
from wingspan.cli.launched import check_wait_is_used, patience
from wingspan.cli.launched import given as options_given
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.runtime_import import need_runtime
from wingspan.deployment import load_deployment
from wingspan.errors import InputError
from wingspan.report.ranks import representative
from wingspan.runtime.launch.group import Group
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.simulate.predicted_timeline import predicted_timeline
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report
from wingspan.specs.cluster import load_cluster
from wingspan.specs.reading import choice
from wingspan.specs.running import TransportKind

if TYPE_CHECKING:
    from wingspan.runtime.transport.transport import Transport

_MAY_DIFFER = {
    "deployment",
    "checkpoint",
    "cluster",
    "ranks_per_node",
    "trace",
    "html",
    "wait_seconds",
    "as_json",
}
"""Options that ranks may have each its own, or that are compared by what they lead to."""


_PATHS: Any = {"checkpoint": True, "workload": {"routing": {"trace"}}}
"""Keys of a deployment whose files each rank may find elsewhere."""


class Compute(StrEnum):
    """What ranks do while they compute."""

    PACED = "paced"
    """They sleep as long as the described GPU computes."""
    REAL = "real"


@dataclass(frozen=True)
class CompareArguments:
    """The command line of `wingspan compare`."""

    deployment: Path
    compute: str
    checkpoint: Path | None
    cluster: str | None
    time_scale: float
    ranks_per_node: int | None
    steps: int
    transport: str
    trace: Path | None
    html: Path | None
    wait_seconds: float | None
    as_json: bool

    @property
    def keep_spans(self) -> bool:
        """Whether some output shows the timeline."""
        return self.trace is not None or self.html is not None

    @property
    def outputs(self) -> list[Path]:
        """All files to write."""
        traces = () if self.trace is None else trace_files(self.trace)
        return [*traces, *(() if self.html is None else (self.html,))]


def execute(arguments: CompareArguments) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    given = load_deployment(arguments.deployment)
    links = None if arguments.cluster is None else load_cluster(arguments.cluster)
    if given.options.attention_ranks > 1:
        raise InputError(
            f"{arguments.deployment}: attention_ranks {given.options.attention_ranks}: paced runs have "
            "data-parallel attention; set it to 1"
        )
    if given.options.expert_tensor_parallel > 1:
        raise InputError(
            f"{arguments.deployment}: expert_tensor_parallel {given.options.expert_tensor_parallel}: ranks hold whole "
            "experts; set it to 1"
        )
    if shared := given.model.experts.shared_slots:
        raise InputError(
            f"{arguments.deployment}: shared_slots {shared}: ranks compute shared experts for their own tokens; plan "
            "it without"
        )
    if given.workload.mtp_tokens:
        raise InputError(
            f"{arguments.deployment}: mtp_tokens {given.workload.mtp_tokens}: ranks try no tokens ahead; set it to 0"
        )
    if not 0 < arguments.time_scale < math.inf:
        raise InputError(
            f"--time-scale {arguments.time_scale:g}: use a number above 0; 1 is the GPU's own pace"
        )
    check_outputs(*arguments.outputs)
    choice(arguments.transport, "--transport", TransportKind)
    if choice(arguments.compute, "--compute", Compute) is Compute.REAL:
        alike = {
            **options_given(arguments, _MAY_DIFFER),
            "the deployment": given.model_dump_json(exclude=_PATHS),
        }
        with cleared_up(*arguments.outputs):
            compare_real(
                arguments.deployment,
                arguments.checkpoint,
                links,
                arguments.ranks_per_node,
                arguments.steps,
                arguments.transport,
                arguments.wait_seconds,
                alike,
                partial(_finish, arguments=arguments),
                keep_spans=arguments.keep_spans,
            )
        return
    group = Group.find(os.environ, given.ranks, arguments.ranks_per_node, arguments.transport)
    check_wait_is_used(arguments.wait_seconds, group)
    need_runtime()
    from wingspan.runtime import api as runtime
    from wingspan.testbed import emulate

    if group.launch is None:
        runtime.check_room(group.size, emulate.rank_bytes(given), "take fewer ranks or tokens per GPU")
    drawn_RLTK = emulate.choices(given)
    routing = emulate.recorded(drawn_RLTK, given.model.experts.count)

    device = runtime.select_device("cpu")
    group = group.meet(os.environ, device, patience(arguments.wait_seconds))

    def work(transport: Transport) -> None:
        found = links or runtime.with_links(given.cluster, runtime.measure_links(transport, device))
        per_node = transport.world.ranks_per_node
        deployment = emulate.emulated(given, found, per_node, arguments.time_scale, routing)
        measured = emulate.run_emulated(
            transport,
            deployment,
            drawn_RLTK,
            arguments.steps,
            keep_spans=arguments.keep_spans,
            in_testbed=group.nodes is not None,
        )
        if measured is not None:
            _finish(predict(deployment), *measured, arguments)

    with cleared_up(*arguments.outputs):
        group.run(
            work,
            device,
            {
                **options_given(arguments, _MAY_DIFFER),
                "the deployment": given.model_dump_json(exclude=_PATHS),
                "the links": "measured" if links is None else links.model_dump_json(),
            },
        )


def _finish(
    prediction: Prediction, measured: StepReport, timeline: RunTimeline, arguments: CompareArguments
) -> None:
    """On rank 0: tables, traces and the page."""
    from wingspan.cli.compare_view import print_json, show, write_html
    from wingspan.report.perfetto import write_trace

    predicted = step_report(prediction)
    if arguments.as_json:
        print_json(predicted, measured)
    else:
        show(prediction.deployment, predicted, measured, arguments.trace, arguments.html)
    if arguments.trace is not None:
        ranks = range(min(8, predicted.ranks))
        to_predicted, to_measured = trace_files(arguments.trace)
        write_trace(predicted_timeline(prediction, ranks), to_predicted)
        write_trace(timeline.of_ranks(ranks), to_measured)
    if arguments.html is not None:
        beside = predicted_timeline(prediction, list(representative(measured)))
        write_html(prediction.deployment, (predicted, measured), (beside, timeline), arguments.html)


def trace_files(name: Path) -> tuple[Path, Path]:
    """The files of `--trace`: predicted, measured."""
    return name.parent / f"{name.name}-predicted.json", name.parent / f"{name.name}-measured.json"
