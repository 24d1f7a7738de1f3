"""`wingspan place`: which expert goes to which rank, by every strategy side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wingspan.cli.described import described
from wingspan.cli.options import Html, Json

if TYPE_CHECKING:
    from wingspan.describe import Description

_Dispatcher = Annotated[
    str | None,
    typer.Option(
        "--dispatcher",
        help="flat, deduplicated or hierarchical (default: rows cross once per node).",
    ),
]
_Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-gpu", "-b", min=1, help="New tokens per GPU and step (default: as in the trace)."
    ),
]
_OF_STEPS_ALONE = (
    "source",
    "placement",
    "total_sequences",
    "tokens_spread",
    "context_spread",
    "routing",
    "expected_loads",
    "expert_tensor_parallel",
    "from_weights",
    "shared_in_slots",
    "mtp_tokens",
    "acceptance",
    "engine",
    "seed",
)
"""What a step is asked for and placing is not, or says otherwise."""


@described(without=_OF_STEPS_ALONE, dispatcher=_Dispatcher, tokens_per_gpu=_Tokens)
def place(
    *,
    routing: Annotated[
        Path | None,
        typer.Argument(
            help="A trace that record, synthesize or import wrote; or loads: what import wrote, or a matrix, layers x "
            "experts (JSON, .npy, CSV, Parquet); with --from, an engine's dump.",
            show_default=False,
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="The engine that recorded it: sglang, vllm or tensorrt-llm."),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(help="Instead of a trace: a kind that synthesize draws, in the shape of --model."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The trace's model: a preset, a config.json or its folder, or a deployment file, whose ranks and "
            "options then count (default deepseek-v3, where the trace is of its shape)."
        ),
    ] = None,
    said: Description,
    spare_ranks: Annotated[int, typer.Option(min=0, help="Further ranks, for replicas.")] = 0,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share the fast link (default: the cluster's).")
    ] = None,
    request_routing: Annotated[
        bool,
        typer.Option("--request-routing", help="Also: each request lives on the node its experts are on."),
    ] = False,
    present: Annotated[
        Path | None,
        typer.Option(
            "--current",
            help="The placement in use, or an engine's file of it: ours then moves only what pays.",
        ),
    ] = None,
    horizon_steps: Annotated[
        int, typer.Option(min=1, help="Steps over which a move must pay for itself (with --current).")
    ] = 1000,
    expert_memory_gb: Annotated[
        float | None, typer.Option(min=0.0, help="GB per rank for experts; refuse what does not fit.")
    ] = None,
    placement: Annotated[str, typer.Option(help="Which one --out writes; a name from the table.")] = "ours",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the placement as JSON; with a deployment as --model that, with the placement in it."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="Write --out as an engine loads it: sglang, vllm, vllm-ascend, tensorrt-llm."),
    ] = None,
    html: Html = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random strategy and the synthetic trace.")] = 0,
    as_json: Json = False,
) -> None:
    """Place experts on ranks by all strategies, and show what each leads to.

    Plans from the first half of the trace. The table is what `wingspan simulate` predicts with each placement and the
    whole trace; the verdict below it is of the later half alone, which no plan has seen. Of loads it is alike, if they
    are of several moments.

    Examples:

      wingspan place trace.parquet --model models/tiny --ranks-per-node 4 --out placement.json

      wingspan place --synthetic log-normal --ranks 32 --experts-per-rank 9

      wingspan place --synthetic communities --spare-ranks 64 --request-routing

      wingspan place trace.parquet --current placement.json --horizon-steps 5000

      wingspan place load.npy --ranks 32 --redundant 32 --to sglang --out location.json

      wingspan place dumps/ --from sglang --ranks 32 --redundant 32 --to sglang --out location.json
    """
    from dataclasses import replace

    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.place_job import PlaceArguments, execute

    check_outputs(out, html)
    execute(
        PlaceArguments(
            routing=routing,
            from_engine=from_,
            synthetic=synthetic,
            deployment=replace(said, source=model or ""),
            spare_ranks=spare_ranks,
            ranks_per_node=ranks_per_node,
            request_routing=request_routing,
            present=present,
            horizon_steps=horizon_steps,
            expert_memory_gb=expert_memory_gb,
            placement=placement,
            out=out,
            to_engine=to,
            html=html,
            seed=seed,
            as_json=as_json,
        )
    )
