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
        typer.Option(help="Numbers of the MoE layers in the model, 3-60 or 1,3,5 (default: 0 and on)."),
    ] = None,
    hidden_layers: Annotated[
        int | None,
        typer.Option(min=1, help="Hidden layers in all, for sglang (default: last MoE layer + 1)."),
    ] = None,
    fill_empty: Annotated[
        bool, typer.Option("--fill-empty", help="Put replicas into empty slots; engines know no empty slot.")
    ] = False,
) -> None:
    """Write a placement as a serving engine loads it, read it back, and print the command line that uses it.

    Examples:

      wingspan export placement.json --to sglang --moe-layers 3-60 --out location.json

      wingspan export placement.json --to tensorrt-llm --moe-layers 3-60 --out balancer.yaml

      wingspan export placement.json --to vllm --fill-empty --out map.json
    """
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.placement_file import parse_layers, read_placement
    from wingspan.interop.export import ModelLayers
    from wingspan.interop.export import export as write
    from wingspan.interop.physical import fill_empty as filled

    check_outputs(out)
    wanted = read_placement(placement)
    if fill_empty:
        wanted = filled(wanted)
    layers = parse_layers(moe_layers) or tuple(range(wanted.num_layers))
    command = write(wanted, to, out, ModelLayers(layers, hidden_layers or layers[-1] + 1))
    physical = wanted.num_ranks * wanted.slots_per_rank
    print(
        f"{out}: {wanted.num_layers} MoE layers, {wanted.num_experts} experts on {physical} slots of "
        f"{wanted.num_ranks} ranks; reads back as the same placement\n{command}"
    )
