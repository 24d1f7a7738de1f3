"""`wingspan export`: a placement as the file that a serving engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    placement: Annotated[Path, typer.Argument(help="A placement's JSON file.")],
    to: Annotated[str, typer.Option(help="sglang, vllm, vllm-ascend or tensorrt-llm.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    moe_layers: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the MoE layers in the model, 3-60 or 1,3,5, where the file lacks them."
        ),
    ] = None,
    hidden_layers: Annotated[
        int | None, typer.Option(min=1, help="Hidden layers in all, where the file lacks it (sglang).")
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share a node, where the file lacks it.")
    ] = None,
    fill_empty: Annotated[
        bool, typer.Option("--fill-empty", help="Put replicas into empty slots; engines know no empty slot.")
    ] = False,
) -> None:
    """Write a placement as a serving engine loads it, read it back, and print the command line that uses it.

    Examples:

      wingspan export placement.json --to sglang --out location.json

      wingspan export old.json --to tensorrt-llm --moe-layers 3-60 --ranks-per-node 8 --out balancer.yaml

      wingspan export placement.json --to vllm --fill-empty --out map.json
    """
    from wingspan.cli.export_job import execute
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.values import layer_numbers

    check_outputs(out)
    given = {
        "moe_layers": layer_numbers(moe_layers),
        "hidden_layers": hidden_layers,
        "ranks_per_node": ranks_per_node,
    }
    execute(placement, to, out, given, fill=fill_empty)
