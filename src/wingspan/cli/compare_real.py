"""`wingspan compare --compute real`: the deployment's step with real weights, beside its prediction on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.cli.launched import patience
from wingspan.cli.runtime_import import need_runtime
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec
from wingspan.runtime.setup.setup import Asked, Setup, read_setup
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.specs.cluster import Cluster
from wingspan.specs.part_precision import WEIGHTS
from wingspan.specs.precision import Precision
from wingspan.specs.running import RowPrecision, WeightType

if TYPE_CHECKING:
    from wingspan.runtime.transport.transport import Transport

_PRECISION = {WeightType.FLOAT32: Precision.FP32, WeightType.BFLOAT16: Precision.BF16}
Finish = Callable[[Prediction, StepReport, RunTimeline], None]


def compare_real(
    deployment: Path,
    checkpoint: Path | None,
    machine: Cluster | None,
    ranks_per_node: int | None,
    steps: int,
    transport: str,
    wait_seconds: float | None,
    given: dict[str, str],
    finish: Finish,
    *,
    keep_spans: bool,
) -> None:
    """Run it and predict it on this machine; `finish` gets both on rank 0.

    Args:
        deployment: its file.
        checkpoint: folder of its weights, where the file's is not meant.
        machine: this machine as `wingspan calibrate` found it; None: calibrated now.
        ranks_per_node: that count as one node.
        steps: to measure, in decode.
        transport: a kind's name.
        wait_seconds: for ranks that a launcher started.
        given: what all ranks must have alike.
        finish: shows it.
        keep_spans: also keep the timeline.
    """
    asked = Asked(deployment, checkpoint, ranks_per_node=ranks_per_node, transport=transport)
    setup = read_setup(asked, os.environ)
    if setup.deployment is None:
        raise InputError(f"{deployment}: not a deployment file")
    group = setup.group(os.environ)
    need_runtime()
    from wingspan.runtime import api as runtime
    from wingspan.runtime.calibration import calibrate
    from wingspan.testbed.real import as_run, run_step, work_of

    for note in setup.notes if group.rank in (None, 0) else ():
        print(f"wingspan: {note}", file=sys.stderr)
    device = runtime.select_device("cpu")
    group = group.meet(os.environ, device, patience(wait_seconds))
    engine = runtime.engine_setup(setup, group, device)
    planned = _ran(setup, setup.deployment).model_copy(
        update={"placement": PlacementSpec.explicit(engine.placement)}
    )
    work = work_of(planned, steps)
    runtime.check_context(work.prompts, work.new_tokens, engine.model.config)
    request = runtime.RunRequest(
        engine, work.prompts, work.new_tokens, runtime.Sampling(), keep_spans=keep_spans, ignore_eos=True
    )
    tokenizer = runtime.Tokenizer(setup.folder)
    phase = planned.workload.phase

    def on_rank(joined: Transport) -> None:
        here = machine or calibrate(joined, device, "this machine")[0]
        measured = run_step(joined, request, tokenizer, phase)
        if measured is not None:
            report, timeline, choices = measured
            ran = as_run(planned, here, joined.world.ranks_per_node, choices)
            finish(predict(ran), report, timeline)

    everything = {**given, "the machine": "measured" if machine is None else machine.model_dump_json()}
    if group.place is not None:
        everything |= runtime.fingerprint(setup.folder)
    group.run(on_rank, device, everything)


def _ran(setup: Setup, deployment: Deployment) -> Deployment:
    """The deployment in the number formats that run."""
    own = _PRECISION[setup.dtype]
    rows = {
        RowPrecision.SAME: (own, own),
        RowPrecision.BFLOAT16: (Precision.BF16, Precision.BF16),
        RowPrecision.FLOAT8: (Precision.FP8, Precision.BF16),
    }[setup.row_precision]
    of_parts = dict.fromkeys((*WEIGHTS, "activations", "kv", "core"), own)
    workload = deployment.workload.with_precision(**of_parts, dispatch=rows[0], combine=rows[1])
    options = deployment.options.model_copy(
        update={"schedule": setup.schedule, "dispatcher": setup.dispatcher}
    )
    return deployment.model_copy(update={"workload": workload, "options": options})
