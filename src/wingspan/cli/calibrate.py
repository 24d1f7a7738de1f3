"""`wingspan calibrate`: measure the machine or cluster this runs on, and write it down as a cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import Device, LaunchedRanks, RanksPerNode, Transport, WaitSeconds


def calibrate(
    ranks: LaunchedRanks = None,
    ranks_per_node: RanksPerNode = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write the cluster to (default: standard output).")
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="Name of the cluster in the file.")] = "measured",
    device: Device = "cpu",
    transport: Transport = "auto",
    wait_seconds: WaitSeconds = None,
) -> None:
    """Measure matrix products, memory, and latency and bandwidth of each link level, all ranks at once.

    The file can be given wherever a cluster is asked for.

    Examples:

      wingspan calibrate --ranks 4 --ranks-per-node 2 --out here.yaml

      torchrun --nnodes 2 --nproc-per-node 8 -m wingspan.cli.main calibrate --device cuda --out cluster.yaml
    """
    from wingspan.cli.calibrate_job import execute

    execute(ranks, ranks_per_node, transport, out, cluster_name, device, wait_seconds)
