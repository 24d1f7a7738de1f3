"""`wingspan compare`: run a deployment on real links with paced compute, and predict the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import RanksPerNode, Transport, WaitSeconds


def compare(
    deployment: Annotated[
        Path, typer.Argument(help="Deployment file, as simulate --out or plan --out writes it.")
    ],
    compute: Annotated[
        str,
        typer.Option(help="paced: ranks sleep as long as the described GPU computes; real: they compute."),
    ] = "paced",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="With --compute real: folder of the weights, where the file names none or another."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="What it runs on, as a cluster file (wingspan calibrate): the links count, and with --compute real "
            "the machine; default: measured now."
        ),
    ] = None,
    time_scale: Annotated[
        float, typer.Option(help="How many times slower than the described GPU each rank computes.")
    ] = 1.0,
    ranks_per_node: RanksPerNode = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure, after one that warms up.")] = 3,
    transport: Transport = "auto",
    trace: Annotated[
        Path | None,
        typer.Option(help="Write NAME-predicted.json and NAME-measured.json for ui.perfetto.dev."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write both, figure beside figure, as one self-contained page.")
    ] = None,
    wait_seconds: WaitSeconds = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Both reports and the errors as one JSON object.")
    ] = False,
) -> None:
    """Run a deployment and predict it, and show both side by side.

    Transfers are real, through the runtime's own dispatchers and schedules. Compute is paced: each rank sleeps as
    long as the deployment's GPU would compute, times --time-scale, so that EP sizes that this machine could never
    compute for can be measured on its links. With --compute real the deployment's model itself computes its step, and
    the prediction is of this machine.

    Examples:

      wingspan simulate seed-small.json --ranks 8 --out d.json && wingspan compare d.json

      wingspan plan models/tiny --gpus 8 --out d.json && wingspan compare d.json --compute real

      wingspan testbed run -- wingspan compare d.json --time-scale 500 --trace step
    """
    from wingspan.cli.compare_job import CompareArguments, execute

    execute(
        CompareArguments(
            deployment,
            compute,
            checkpoint,
            cluster,
            time_scale,
            ranks_per_node,
            steps,
            transport,
            trace,
            html,
            wait_seconds,
            as_json,
        )
    )
