"""Options of commands that start an engine: each says what `runtime/setup` takes, and means the same in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EngineSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Folder of a checkpoint in the Hugging Face format, or a deployment file; options then change the file's "
        "values.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", help="Folder of a deployment's weights, where the file names none or another."
    ),
]
EngineRanks = Annotated[
    int | None,
    typer.Option(
        "--ranks",
        help="Ranks to start on this machine (default: the deployment's or placement's, else one per core); "
        "`run` under torchrun, mpirun or Slurm takes theirs.",
    ),
]
EngineSlots = Annotated[
    int | None,
    typer.Option(
        "--experts-per-rank",
        help="Slots per rank and layer (default: the deployment's, else as few as hold all experts).",
    ),
]
EnginePlacement = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="linear (default), round-robin, random, balanced, or a file that place, import or plan wrote.",
    ),
]
EngineDtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="auto (the deployment's, else the checkpoint's; default), float32 or bfloat16."
    ),
]
EngineSchedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Order of a step: sequential (default, or the deployment's), chunks:N (rows leave in N parts), "
        "two-batch; in `run` also auto: by prediction.",
    ),
]
EngineDispatcher = Annotated[
    str | None,
    typer.Option(
        "--dispatcher",
        help="How rows travel: flat (one per token and expert), deduplicated (per token and rank), hierarchical (per "
        "token and node), or auto: whichever sends least (default, or the deployment's).",
    ),
]
RowPrecision = Annotated[
    str | None,
    typer.Option(
        "--row-precision",
        help="Of rows to the experts: same (as the model's; default, or the deployment's), bfloat16 or float8.",
    ),
]
KVTokensPerRank = Annotated[
    int | None,
    typer.Option(
        "--kv-tokens-per-rank",
        min=2,
        help="Tokens of KV cache that a rank has room for (default: what a quarter of the free memory holds); requests "
        "that outgrow it are put back, and computed again.",
    ),
]
RebalanceText = Annotated[
    str,
    typer.Option(
        "--rebalance",
        help='Move experts while running: auto (when the gain exceeds the cost), "every N" steps, or off.',
    ),
]
