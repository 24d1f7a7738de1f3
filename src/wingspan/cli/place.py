"""`wingspan place`: which expert goes to which rank, by every strategy side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def place(
    trace: Annotated[
        Path | None,
        typer.Argument(help="A trace that record, synthesize or import wrote.", show_default=False),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(help="Instead of a trace: a kind that synthesize draws, in the shape of --model."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The trace's model: a preset, a config.json or its folder (default deepseek-v3, where the trace is "
            "of its shape)."
        ),
    ] = None,
    cluster: Annotated[str, typer.Option(help="Speeds: a cluster's preset or its YAML file.")] = "h100-sxm",
    ranks: Annotated[
        int | None,
        typer.Option(
            "--ranks", "--ep", min=1, help="Ranks to spread over (default: as many as the experts fill)."
        ),
    ] = None,
    spare_ranks: Annotated[int, typer.Option(min=0, help="Further ranks, for replicas.")] = 0,
    slots_per_rank: Annotated[int, typer.Option(min=1, help="Experts per (layer, rank).")] = 1,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share the fast link (default: the cluster's).")
    ] = None,
    flat: Annotated[
        bool, typer.Option("--flat", help="Rows cross once per expert, not once per node (flat dispatcher).")
    ] = False,
    request_routing: Annotated[
        bool,
        typer.Option("--request-routing", help="Also: each request lives on the node its experts are on."),
    ] = False,
    present: Annotated[
        Path | None, typer.Option("--from", help="The placement in use: ours then moves only what pays.")
    ] = None,
    step_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens per rank and step (default: as in the trace).")
    ] = None,
    horizon_steps: Annotated[
        int, typer.Option(min=1, help="Steps over which a move must pay for itself (with --from).")
    ] = 1000,
    expert_memory_gb: Annotated[
        float | None, typer.Option(min=0.0, help="GB per rank for experts; refuse what does not fit.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="Which one --out writes; a name from the table.")] = "ours",
    out: Annotated[Path | None, typer.Option(help="Write the placement as JSON.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random strategy and the synthetic trace.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Place experts on ranks by all strategies, and show what each leads to.

    Plans from the first half of the trace and scores on the second, so that no plan profits from what it has seen.

    Examples:

      wingspan place trace.parquet --model models/tiny --ranks-per-node 4 --out placement.json

      wingspan place --synthetic log-normal --ranks 32 --slots-per-rank 9

      wingspan place --synthetic communities --spare-ranks 64 --request-routing

      wingspan place trace.parquet --from placement.json --horizon-steps 5000
    """
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.place_job import Arguments, execute

    check_outputs(out)
    execute(
        Arguments(
            trace=trace,
            synthetic=synthetic,
            model=model,
            cluster=cluster,
            ranks=ranks,
            spare_ranks=spare_ranks,
            slots_per_rank=slots_per_rank,
            ranks_per_node=ranks_per_node,
            flat=flat,
            request_routing=request_routing,
            present=present,
            step_tokens=step_tokens,
            horizon_steps=horizon_steps,
            expert_memory_gb=expert_memory_gb,
            strategy=strategy,
            out=out,
            seed=seed,
            as_json=as_json,
        )
    )
