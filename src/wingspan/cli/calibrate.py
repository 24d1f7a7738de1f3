"""`wingspan calibrate`: measure the machine or cluster this runs on, and write it down as a cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.launched import WAIT_HELP


def calibrate(
    ranks: Annotated[
        int | None,
        typer.Option(help="Ranks to start on this machine; under torchrun, mpirun or Slurm theirs are used."),
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(help="How many ranks count as one node (default: all that share a machine).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write the cluster to (default: standard output).")
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="Name of the cluster in the file.")] = "measured",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    transport: Annotated[
        str, typer.Option(help="Whose links: auto, torch (gloo or NCCL), shm (shared memory in nodes), mpi.")
    ] = "auto",
    wait_seconds: Annotated[float | None, typer.Option(min=1, help=WAIT_HELP)] = None,
) -> None:
    """Measure matrix products, memory, and latency and bandwidth of each link level, all ranks at once.

    The file can be given wherever a cluster is asked for.

    Examples:

      wingspan calibrate --ranks 4 --ranks-per-node 2 --out here.yaml

      torchrun --nnodes 2 --nproc-per-node 8 -m wingspan.cli.main calibrate --device cuda --out cluster.yaml
    """
    from wingspan.cli.calibrate_job import execute

    execute(ranks, ranks_per_node, transport, out, cluster_name, device, wait_seconds)
