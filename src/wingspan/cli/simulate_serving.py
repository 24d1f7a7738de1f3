"""`wingspan simulate-serving`: requests arrive, and latencies, throughput and the highest load come out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.options import Acceptance, Csv, EngineName, Html, Json, MtpTokens, PrecisionText, Price


def simulate_serving(
    model: Annotated[
        str, typer.Argument(help="A model preset, a config.json or its folder, or a deployment file.")
    ] = "deepseek-v3",
    cluster: Annotated[str, typer.Option(help="Preset or cluster file.")] = "h100-sxm",
    ranks: Annotated[
        int, typer.Option(min=1, help="EP size of the group that decodes, and prefills too.")
    ] = 64,
    separate_prefill: Annotated[
        int | None,
        typer.Option(
            min=1, help="Prefill on a group of its own, of this EP size, beside the one that decodes."
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Requests a second: 10, or 1,10,100 for a curve; stretches a trace's times (default 10, or its own)."
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="A trace instead of drawn ones: Azure, Mooncake, BurstGPT, ShareGPT, or a table (.csv, .json, .jsonl, "
            ".parquet) with arrivals and tokens."
        ),
    ] = None,
    num_requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Draw at least so many (Poisson; default 2000), more where needed to settle; of a trace, the first.",
        ),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Mean prompt length.")] = 1024,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean output length.")] = 256,
    length_spread: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Standard deviation / mean of both lengths.")
    ] = 0.5,
    max_sequences: Annotated[int, typer.Option(min=1, help="Most sequences at a time, per GPU.")] = 128,
    step_tokens: Annotated[
        int, typer.Option(min=2, help="Most tokens of a step, per GPU: prompts are cut into chunks of it.")
    ] = 1024,
    ttft_p99: Annotated[
        float | None, typer.Option(min=1e-6, help="Limit in seconds for the time to first token.")
    ] = None,
    tpot_p99: Annotated[
        float | None, typer.Option(min=1e-6, help="Limit in seconds for the time per output token.")
    ] = None,
    find_limit: Annotated[
        bool, typer.Option("--find-limit", help="Search the highest load within the limits.")
    ] = False,
    prefix_caching: Annotated[
        bool,
        typer.Option(
            "--prefix-caching",
            help="Compute once what a trace's prompts share (hash_ids), while a home holds it.",
        ),
    ] = False,
    attention_ranks: Annotated[int, typer.Option(min=1, help="Ranks of a node that share attention.")] = 1,
    schedule: Annotated[
        str, typer.Option(help="sequential, chunks:N, two-batch, single-batch or fused.")
    ] = "sequential",
    routing: Annotated[
        str,
        typer.Option(
            help="uniform, power-law:EXPONENT, log-normal:SIGMA, a routing trace, or loads (layers x experts: "
            "what import wrote, JSON, .npy, CSV, Parquet)."
        ),
    ] = "uniform",
    precision: PrecisionText = None,
    mtp_tokens: MtpTokens = None,
    acceptance: Acceptance = None,
    engine: EngineName = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all draws (default 0).")] = None,
    price: Price = None,
    as_json: Json = False,
    as_csv: Csv = False,
    html: Html = None,
) -> None:
    """Simulate serving: continuous batching, chunked prefill, latencies with percentiles, the highest load.

    Examples:

      wingspan simulate-serving deepseek-v3 --ranks 64 --rate 10,50,100,200 --html serving.html

      wingspan simulate-serving deepseek-v3 --ranks 64 --ttft-p99 2 --tpot-p99 0.05 --find-limit

      wingspan simulate-serving deepseek-v3 --ranks 128 --separate-prefill 32 --requests trace.csv

      wingspan plan deepseek-v3 --gpus 64 --out d.json && wingspan simulate-serving d.json --rate 50
    """
    from wingspan.cli.outputs import check_one_format, check_outputs
    from wingspan.cli.serving_job import ServingArguments, execute
    from wingspan.deployment import is_deployment, load_deployment
    from wingspan.simulate.serving.predict import Serving

    check_outputs(html)
    check_one_format(as_json, as_csv)
    execute(
        ServingArguments(
            serving=Serving(
                model=model,
                cluster=cluster,
                ranks=ranks,
                separate_prefill=separate_prefill,
                max_sequences=max_sequences,
                step_tokens=step_tokens,
                attention_ranks=attention_ranks,
                schedule=schedule,
                routing=routing,
                precision=precision,
                mtp_tokens=mtp_tokens,
                acceptance=acceptance,
                engine=engine,
                seed=seed or 0,
                prefix_caching=prefix_caching,
                price_per_gpu_hour=price,
                deployment=load_deployment(Path(model)) if is_deployment(model) else None,
            ),
            seed=seed,
            rate=rate,
            requests=requests,
            num_requests=num_requests,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            length_spread=length_spread,
            ttft_p99=ttft_p99,
            tpot_p99=tpot_p99,
            find_limit=find_limit,
            as_json=as_json,
            as_csv=as_csv,
            html=html,
        )
    )
