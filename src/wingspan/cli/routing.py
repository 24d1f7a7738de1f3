"""`wingspan routing`: what a routing trace says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import Json


def routing(
    trace: Annotated[
        Path,
        typer.Argument(
            help="A trace that record, synthesize or import wrote, or loads: import's, or a matrix."
        ),
    ],
    ranks_per_node: Annotated[
        str | None, typer.Option(help="Node sizes for the nodes per token, with commas: 4,8 (default 8).")
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            "--ranks", min=1, help="Ranks over which the experts lie (default: one expert per rank)."
        ),
    ] = None,
    placement: Annotated[
        Path | None, typer.Option(help="Where the experts lie (default: in order). First replicas count.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(min=1, help="Windows of time for the drift (default 8).")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=0, help="How many of the strongest pairs to show (default 8).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Show load, imbalance, co-activation, drift and nodes per token of a routing trace; of loads what they have.

    Examples:

      wingspan routing trace.parquet

      wingspan routing trace.parquet --ranks 32 --ranks-per-node 4,8 --html routing.html

      wingspan routing load.json --html load.html
    """
    from wingspan.cli import routing_job
    from wingspan.cli.outputs import check_outputs
    from wingspan.errors import InputError
    from wingspan.routing.trace_file import is_trace

    check_outputs(html)
    shown = routing_job.RoutingOutput(html, as_json)
    if trace.suffix == ".parquet" and is_trace(trace):
        routing_job.show_trace(
            trace,
            shown,
            placement=placement,
            ranks=ranks,
            ranks_per_node=ranks_per_node or "8",
            windows=8 if windows is None else windows,
            pairs=8 if pairs is None else pairs,
        )
        return
    for option, value in (
        ("--ranks-per-node", ranks_per_node),
        ("--ranks", ranks),
        ("--placement", placement),
        ("--windows", windows),
        ("--pairs", pairs),
    ):
        if value is not None:
            raise InputError(f"{option} {value}: {trace} holds loads alone; it needs a routing trace")
    routing_job.show_load(trace, shown)
