"""`wingspan sweep`: predictions over any axes."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.cli.options import Acceptance, Csv, EngineName, Html, Json, MtpTokens, PrecisionText, Price


def sweep(
    model: Annotated[str, typer.Argument(help="A model preset, a config.json or its folder.")] = "seed",
    cluster: Annotated[
        str, typer.Option(help="Presets or cluster files; several make an axis.")
    ] = "h100-sxm",
    ranks: Annotated[str, typer.Option(help="EP sizes: 64, or 16,64, or 16..1024 (doubling).")] = "64",
    experts_per_rank: Annotated[
        str | None,
        typer.Option(
            help="The baseline: 1..32. As many GPUs as --ranks says form smaller groups, each holding all experts; "
            "tokens per GPU stay. Left out: all GPUs are one group."
        ),
    ] = None,
    tokens_per_gpu: Annotated[
        str | None,
        typer.Option(
            "--tokens-per-gpu",
            "-b",
            help="New tokens per GPU; in decode, sequences (default 64; in prefill 4096).",
        ),
    ] = None,
    total_sequences: Annotated[
        str | None,
        typer.Option(help="Sequences over all GPUs, instead of --tokens-per-gpu; some GPUs may have none."),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="Context per sequence in tokens; in prefill, the prompt (default 4096, or the most that the model "
            "and the batch hold)."
        ),
    ] = None,
    routing: Annotated[
        str,
        typer.Option(
            help="uniform, power-law:EXPONENT, log-normal:SIGMA, a routing trace, or a JSON list of loads."
        ),
    ] = "uniform",
    bandwidth: Annotated[
        str | None, typer.Option(help="GB/s per GPU between nodes, instead of the cluster's.")
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(
            help="sequential, chunks:N, two-batch, single-batch, fused, or fastest (of the first three)."
        ),
    ] = "sequential",
    phase: Annotated[str, typer.Option(help="decode or prefill.")] = "decode",
    attention_ranks: Annotated[int, typer.Option(min=1, help="Ranks of a node that share attention.")] = 1,
    expert_tensor_parallel: Annotated[
        str | None,
        typer.Option("--expert-tp", help="GPUs over which every expert is cut: 1,16 (EP beside TP)."),
    ] = None,
    scale_experts: Annotated[
        bool | None,
        typer.Option(
            help="As many experts as EP size, one per GPU. Default: only for the seed's models, which leave the "
            "number of experts open."
        ),
    ] = None,
    precision: PrecisionText = None,
    mtp_tokens: MtpTokens = None,
    acceptance: Acceptance = None,
    engine: EngineName = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    longest_step_ms: Annotated[
        float | None, typer.Option(min=0.001, help="Name the best point whose step is no longer, too.")
    ] = None,
    price: Price = None,
    as_json: Json = False,
    as_csv: Csv = False,
    html: Html = None,
) -> None:
    """Predict a step over any axes: every option with several values is one.

    Examples:

      wingspan sweep seed --cluster seed-ideal,h100-sxm --routing uniform,log-normal:0.6 --ranks 16..256 --context 128

      wingspan sweep seed --experts-per-rank 1..32 -b 1,16,256 --html baseline.html

      wingspan sweep deepseek-v3 --ranks 32..256 -b 1..512 --schedule fastest --csv > points.csv
    """
    from wingspan.cli import sweep_job
    from wingspan.cli.outputs import check_one_format, check_outputs
    from wingspan.cli.values import integers, numbers, words
    from wingspan.limits import MOST_CONTEXT, MOST_EXPERTS, MOST_RANKS, MOST_TOKENS
    from wingspan.report.page import write_page
    from wingspan.report.rows import csv_text, sweep_rows
    from wingspan.report.sweep_page import sweep_page
    from wingspan.simulate.sweep_axes import all_axes
    from wingspan.simulate.sweep_start import start, usual_sizes
    from wingspan.specs.cluster import load_cluster
    from wingspan.writing import json_text

    check_outputs(html)
    check_one_format(as_json, as_csv)
    clusters = [load_cluster(name) for name in words(cluster, "--cluster")]
    base = start(
        model,
        clusters[0],
        phase=phase,
        attention_ranks=attention_ranks,
        precision=precision,
        mtp_tokens=mtp_tokens,
        acceptance=acceptance,
        engine=engine,
        seed=seed,
        scale_experts=scale_experts,
    )
    batches, contexts = usual_sizes(
        phase,
        sweep_job.counts(tokens_per_gpu, "--tokens-per-gpu", MOST_TOKENS),
        sweep_job.counts(context, "--context", MOST_CONTEXT),
        base.model.max_context,
        whole=total_sequences is not None,
    )
    axes = all_axes(
        clusters,
        {
            "schedule": words(schedule, "--schedule"),
            "routing": words(routing, "--routing"),
            "bandwidth": None if bandwidth is None else numbers(bandwidth, "--bandwidth"),
            "context": contexts,
            "tokens_per_gpu": batches if total_sequences is None else None,
            "total_sequences": sweep_job.counts(total_sequences, "--total-sequences", MOST_TOKENS),
            "expert_tensor_parallel": sweep_job.counts(expert_tensor_parallel, "--expert-tp", MOST_RANKS),
            "experts_per_rank": sweep_job.counts(experts_per_rank, "--experts-per-rank", MOST_EXPERTS),
            "ranks": integers(ranks, "--ranks", MOST_RANKS),
        },
    )
    result = sweep_job.predict(base, axes, longest_step_ms, price)
    if as_json:
        print(json_text(result.model_dump(mode="json"), indent=2))
    elif as_csv:
        print(csv_text(sweep_rows(result)), end="")
    else:
        sweep_job.show(result, html)
    if html:
        write_page(sweep_page(result), html)
