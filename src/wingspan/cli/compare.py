"""`wingspan compare`: run a deployment, a step of it or a server under load, and predict the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import RanksPerNode, Transport, WaitSeconds


def compare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DEPLOYMENT",
            help="Deployment file, as simulate --out or plan --out writes it; with --serving also a checkpoint.",
        ),
    ],
    serving: Annotated[
        bool,
        typer.Option(
            "--serving", help="Serve it, and compare what requests meet with a simulation of this server."
        ),
    ] = False,
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
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --serving: ranks to start (default: the deployment's, else one per core)."
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="With --serving: requests a second, 2 or 2,4,6 (default: 40, 60 and 80 % of the highest, measured)."
        ),
    ] = None,
    num_requests: Annotated[
        int, typer.Option(min=4, help="With --serving: draw so many per load and round (Poisson).")
    ] = 60,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="With --serving: mean prompt length.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=2, help="With --serving: mean output length.")] = 32,
    length_spread: Annotated[
        float,
        typer.Option(min=0.0, max=10.0, help="With --serving: standard deviation / mean of both lengths."),
    ] = 0.5,
    max_sequences: Annotated[
        int, typer.Option(min=1, help="With --serving: most sequences at a time, per rank.")
    ] = 16,
    step_tokens: Annotated[
        int, typer.Option(min=2, help="With --serving: most tokens of a step, per rank.")
    ] = 512,
    rounds: Annotated[
        int, typer.Option(min=1, help="With --serving: how often steps are measured and loads sent, in turn.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="With --serving: seed of the requests.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Both reports and the errors as one JSON object.")
    ] = False,
) -> None:
    """Run a deployment and predict it, and show both side by side.

    Transfers are real, through the runtime's own dispatchers and schedules. Compute is paced: each rank sleeps as
    long as the deployment's GPU would compute, times --time-scale, so that EP sizes that this machine could never
    compute for can be measured on its links. With --compute real the deployment's model itself computes its step, and
    the prediction is of this machine.

    With --serving it is served instead: a client sends requests at several loads, and the serving simulator is given
    the same requests, and the times of steps that were measured on this server with other requests.

    Examples:

      wingspan simulate seed-small.json --ranks 8 --out d.json && wingspan compare d.json

      wingspan plan models/tiny --gpus 8 --out d.json && wingspan compare d.json --compute real

      wingspan testbed run -- wingspan compare d.json --time-scale 500 --trace step

      wingspan compare models/tiny --serving --ranks 4
    """
    if serving:
        from wingspan.cli.compare_serving import ServingCompared, compare_serving
        from wingspan.runtime.setup.setup import Asked

        compare_serving(
            ServingCompared(
                Asked(
                    source,
                    checkpoint=checkpoint,
                    ranks=ranks,
                    ranks_per_node=ranks_per_node,
                    transport=transport,
                ),
                rate,
                num_requests,
                prompt_tokens,
                output_tokens,
                length_spread,
                max_sequences,
                step_tokens,
                rounds,
                seed,
                as_json,
                html,
            )
        )
        return
    from wingspan.cli.compare_job import CompareArguments, execute

    execute(
        CompareArguments(
            Path(source),
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
