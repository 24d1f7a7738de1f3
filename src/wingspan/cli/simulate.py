"""`wingspan simulate`: predict one step of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wingspan.cli.described import described
from wingspan.cli.options import Csv, Json
from wingspan.writing import json_text

if TYPE_CHECKING:
    from wingspan.describe import Description


@described(without=("redundant",))
def simulate(
    *,
    said: Description,
    out: Annotated[Path | None, typer.Option("--out", help="Write the deployment as a file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write the timeline for ui.perfetto.dev.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write timeline, breakdown, links and memory as one self-contained page."),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Predict one step: time, throughput, exposed communication, links, memory.

    Examples:

      wingspan simulate deepseek-v3 --ranks 64 --tokens-per-gpu 128

      wingspan simulate seed --cluster seed-ideal --phase prefill --schedule two-batch

      wingspan simulate plan.json --routing log-normal:0.8 --trace step.json --html step.html

      wingspan simulate deepseek-v3 --ranks 288 --placement balanced --routing log-normal:0.8
    """
    from wingspan.cli import simulate_view
    from wingspan.cli.outputs import check_one_format, check_outputs
    from wingspan.deployment import save_deployment
    from wingspan.describe import deployment_of
    from wingspan.simulate.step import predict
    from wingspan.simulate.summary import step_report

    check_outputs(out, trace, html)
    check_one_format(as_json, as_csv)
    deployment = deployment_of(said)
    prediction = predict(deployment)
    report = step_report(prediction)
    # Files come first: whoever reads only the first lines of the screen has them too.
    if out is not None:
        save_deployment(deployment, out)
    if trace is not None:
        simulate_view.write_timeline(prediction, report.slowest_rank, trace)
    if html is not None:
        from wingspan.cli.step_html import write_step

        write_step(prediction, report, html)
    if as_json:
        print(json_text(report.model_dump(mode="json")))
    elif as_csv:
        simulate_view.print_csv(report)
    else:
        simulate_view.show(deployment, report, trace)
        if html is not None:
            print(f"page: {html} (open in a browser)")
