"""`wingspan simulate`: predict one step of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import (
    Activations,
    AttentionRanks,
    ClusterName,
    ContextTokens,
    Csv,
    DispatcherName,
    ExpertsPerRank,
    ExpertTensorParallel,
    Json,
    Kv,
    Phase,
    PlacementName,
    Ranks,
    RoutingText,
    ScheduleText,
    Seed,
    Source,
    Spread,
    Tokens,
    TotalSequences,
    Weights,
)
from wingspan.writing import json_text


def simulate(
    source: Source,
    cluster: ClusterName = None,
    ranks: Ranks = None,
    experts_per_rank: ExpertsPerRank = None,
    placement: PlacementName = None,
    phase: Phase = None,
    tokens_per_gpu: Tokens = None,
    total_sequences: TotalSequences = None,
    context: ContextTokens = None,
    context_spread: Spread = None,
    routing: RoutingText = None,
    expected_loads: Annotated[
        bool, typer.Option("--expected-loads", help="Loads exactly as the routing's shares, not one draw.")
    ] = False,
    schedule: ScheduleText = None,
    dispatcher: DispatcherName = None,
    attention_ranks: AttentionRanks = None,
    expert_tensor_parallel: ExpertTensorParallel = None,
    weights: Weights = None,
    activations: Activations = None,
    kv: Kv = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the deployment as a file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write the timeline for ui.perfetto.dev.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write timeline, breakdown, links and memory as one self-contained page."),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Predict one step: time, throughput, exposed communication, links, memory.

    Examples:

      wingspan simulate deepseek-v3 --ranks 64 --tokens-per-gpu 128

      wingspan simulate seed --cluster seed-ideal --phase prefill --schedule two-batch

      wingspan simulate plan.json --routing log-normal:0.8 --trace step.json --html step.html

      wingspan simulate deepseek-v3 --ranks 288 --placement balanced --routing log-normal:0.8
    """
    from wingspan.cli import simulate_view
    from wingspan.cli.outputs import check_one_format, check_outputs
    from wingspan.deployment import save_deployment
    from wingspan.describe import Description, deployment_of
    from wingspan.simulate.step import predict
    from wingspan.simulate.summary import step_report

    check_outputs(out, trace, html)
    check_one_format(as_json, as_csv)
    deployment = deployment_of(
        Description(
            source=source,
            cluster=cluster,
            ranks=ranks,
            experts_per_rank=experts_per_rank,
            placement=placement,
            phase=phase,
            tokens_per_gpu=tokens_per_gpu,
            total_sequences=total_sequences,
            context=context,
            context_spread=context_spread,
            routing=routing,
            expected_loads=expected_loads,
            schedule=schedule,
            dispatcher=dispatcher,
            attention_ranks=attention_ranks,
            expert_tensor_parallel=expert_tensor_parallel,
            weights=weights,
            activations=activations,
            kv=kv,
            seed=seed,
        )
    )
    prediction = predict(deployment)
    report = step_report(prediction)
    if as_json:
        print(json_text(report.model_dump(mode="json")))
    elif as_csv:
        simulate_view.print_csv(report)
    else:
        simulate_view.show(deployment, report, trace)
    if out is not None:
        save_deployment(deployment, out)
    if trace is not None:
        simulate_view.write_timeline(prediction, report.slowest_rank, trace)
    if html is not None:
        from wingspan.cli.step_html import write_step

        write_step(prediction, report, html)
        if not (as_json or as_csv):
            print(f"page: {html} (open in a browser)")
