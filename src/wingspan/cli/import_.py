"""`wingspan import`: what a serving engine wrote, as Wingspan reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    path: Annotated[Path, typer.Argument(help="A file or folder that the engine wrote or loads.")],
    from_: Annotated[
        str, typer.Option("--from", help="Whose file it is: sglang, vllm, vllm-ascend or tensorrt-llm.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write: JSON, or Parquet for a trace.")],
    ranks: Annotated[
        int | None, typer.Option(min=1, help="EP size; placements of SGLang, vLLM and TensorRT-LLM need it.")
    ] = None,
    experts: Annotated[
        int | None,
        typer.Option(min=1, help="Logical experts per layer (default: the highest number seen + 1)."),
    ] = None,
    moe_layers: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the MoE layers in the model, 3-60 or 1,3,5 (default: what shows); SGLang's placements "
            "need it."
        ),
    ] = None,
    hidden_layers: Annotated[
        int | None,
        typer.Option(min=1, help="Of a placement: hidden layers in all, where the file has fewer."),
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Of a placement: ranks that share the fast link.")
    ] = None,
    model_class: Annotated[
        str | None,
        typer.Option(help="Whose map, where vLLM's file holds several models'."),
    ] = None,
) -> None:
    """Read an engine's placement, routing dump or load statistics; which of them it is shows in the file.

    Examples:

      wingspan import location.json --from sglang --ranks 32 --moe-layers 3-60 --ranks-per-node 8 --out placement.json

      wingspan import dumps/ --from sglang --out trace.parquet

      wingspan import expert_statistic/ --from tensorrt-llm --out load.json
    """
    from wingspan.cli.import_job import execute
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.values import layer_numbers
    from wingspan.interop.physical import ImportOptions

    check_outputs(out)
    layers = layer_numbers(moe_layers)
    execute(
        path, from_, out, ImportOptions(ranks, experts, layers, hidden_layers, ranks_per_node, model_class)
    )
