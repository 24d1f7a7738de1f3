"""`wingspan record`: which experts each token of a text chooses, as a routing trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import Device, Json, LaunchedRanks, RanksPerNode, WaitSeconds, WeightType


def record(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint in the Hugging Face format.")],
    more_text: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]...", help="More text, as --text takes it.")
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="A text file, or a folder of which all UTF-8 files are read; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The trace to write, Parquet.")] = Path("trace.parquet"),
    ranks: LaunchedRanks = None,
    experts_per_rank: Annotated[
        int | None, typer.Option(min=1, help="Slots per rank and layer (default: as many as are needed).")
    ] = None,
    ranks_per_node: RanksPerNode = None,
    request_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of one request: texts are cut into these.")
    ] = 256,
    requests_per_step: Annotated[int, typer.Option(min=1, help="Requests that a rank runs in one step.")] = 4,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens.")] = None,
    dtype: WeightType = "auto",
    device: Device = "cpu",
    wait_seconds: WaitSeconds = None,
    as_json: Json = False,
) -> None:
    """Run texts through a MoE model and store which experts each token chose, layer by layer.

    Examples:

      wingspan record models/tiny --text docs --ranks 8 --out trace.parquet

      wingspan record models/tiny --text README.md docs/*.md --max-tokens 20000

      wingspan routing trace.parquet
    """
    from wingspan.cli.record_job import RecordArguments, execute

    execute(
        RecordArguments(
            model,
            (text or []) + (more_text or []),
            out,
            ranks,
            experts_per_rank,
            ranks_per_node,
            request_tokens,
            requests_per_step,
            max_tokens,
            dtype,
            device,
            wait_seconds,
            as_json,
        )
    )
