"""`wingspan plan`: which EP size, does it fit, how fast is it, and what to change if it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import (
    Activations,
    ClusterName,
    ContextTokens,
    Csv,
    DispatcherName,
    ExpertTensorParallel,
    Json,
    Kv,
    Phase,
    RoutingText,
    Seed,
    Source,
    Spread,
    Tokens,
    TotalSequences,
    Weights,
)


def plan(
    source: Source,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1, help="GPUs to spend, in EP groups side by side (default: as many as the cluster says)."
        ),
    ] = None,
    cluster: ClusterName = None,
    phase: Phase = None,
    tokens_per_gpu: Tokens = None,
    total_sequences: TotalSequences = None,
    context: ContextTokens = None,
    context_spread: Spread = None,
    routing: RoutingText = None,
    dispatcher: DispatcherName = None,
    expert_tensor_parallel: ExpertTensorParallel = None,
    weights: Weights = None,
    activations: Activations = None,
    kv: Kv = None,
    seed: Seed = None,
    longest_step_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="Leave out steps longer than this (decode: time per output token)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the best deployment as a file.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write choices and the best one's step as one self-contained page.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare EP sizes on a number of GPUs: memory, speed, best choice.

    Beside each stands TP: every expert cut over as many GPUs (--expert-tp 2: over pairs, and spread over these). Slots
    per GPU, shared attention, dispatcher and schedule are chosen; without --tokens-per-gpu the batch too, up to what
    memory holds. A file that plan wrote gives the same figures again, and options change what it was to keep.

    Examples:

      wingspan plan deepseek-v3 --gpus 64

      wingspan plan seed --cluster seed-ideal --tokens-per-gpu 16 --context 1024

      wingspan plan qwen3-235b-a22b --phase prefill --out best.json
    """
    from wingspan.cli import plan_view
    from wingspan.cli.outputs import check_one_format, check_outputs
    from wingspan.deployment import save_deployment
    from wingspan.describe import Description
    from wingspan.front import plan as make_plan

    check_outputs(out, html)
    check_one_format(as_json, as_csv)
    made = make_plan(
        Description(
            source=source,
            cluster=cluster,
            phase=phase,
            tokens_per_gpu=tokens_per_gpu,
            total_sequences=total_sequences,
            context=context,
            context_spread=context_spread,
            routing=routing,
            dispatcher=dispatcher,
            expert_tensor_parallel=expert_tensor_parallel,
            weights=weights,
            activations=activations,
            kv=kv,
            seed=seed,
        ),
        gpus,
        longest_step_seconds=None if longest_step_ms is None else longest_step_ms / 1e3,
    )
    if as_json:
        print(plan_view.to_json(made))
    elif as_csv:
        plan_view.print_csv(made)
    else:
        plan_view.show(made, out)
    if out is not None:
        save_deployment(made.shown.deployment, out)
    if html is not None:
        from wingspan.cli.step_html import write_plan

        write_plan(made, html)
        if not (as_json or as_csv):
            print(f"page: {html} (open in a browser)")
