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
        str, typer.Option(help="Node sizes for the nodes per token, with commas: 4,8.")
    ] = "8",
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", help="Ranks over which the experts lie (default: one expert per rank)."),
    ] = None,
    placement: Annotated[
        Path | None, typer.Option(help="Where the experts lie (default: in order). First replicas count.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Windows of time for the drift.")] = 8,
    pairs: Annotated[int, typer.Option(min=0, help="How many of the strongest pairs to show.")] = 8,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Show the load, imbalance, co-activation, drift and nodes per token of a routing trace.

    Examples:

      wingspan routing trace.parquet

      wingspan routing trace.parquet --ranks 32 --ranks-per-node 4,8 --html routing.html
    """
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.routing_job import RoutingArguments, execute

    check_outputs(html)
    execute(
        RoutingArguments(trace, ranks_per_node, ranks, placement, windows, pairs, html, as_json),
    )
