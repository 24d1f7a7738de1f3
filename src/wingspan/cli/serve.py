"""`wingspan serve`: an OpenAI-compatible server over ranks of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.cli.engine_options import (
    Checkpoint,
    EngineDispatcher,
    EngineDtype,
    EnginePlacement,
    EngineRanks,
    EngineSchedule,
    EngineSlots,
    EngineSource,
    KVTokensPerRank,
    RebalanceText,
    RowPrecision,
)
from wingspan.cli.options import Device, RanksPerNode, Transport


def serve(
    source: EngineSource,
    checkpoint: Checkpoint = None,
    ranks: EngineRanks = None,
    experts_per_rank: EngineSlots = None,
    ranks_per_node: RanksPerNode = None,
    placement: EnginePlacement = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Beyond this machine only with a key in WINGSPAN_API_KEY, or --anybody."
        ),
    ] = "127.0.0.1",
    anybody: Annotated[
        bool, typer.Option("--anybody", help="Let everyone who reaches --host call, without a key.")
    ] = False,
    model_name: Annotated[
        str | None, typer.Option(help="The model's name in calls (default: its folder's).")
    ] = None,
    max_sequences: Annotated[
        int, typer.Option(min=1, help="Most sequences at a time, per rank; others wait.")
    ] = 64,
    step_tokens: Annotated[
        int, typer.Option(min=2, help="Most tokens of a step, per rank: prompts are cut into chunks of it.")
    ] = 512,
    kv_tokens_per_rank: KVTokensPerRank = None,
    prefix_caching: Annotated[
        bool,
        typer.Option(
            "--prefix-caching/--no-prefix-caching",
            help="Compute once what prompts begin with, where the model's caches allow it; no token changes.",
        ),
    ] = True,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Answers that may wait for a place; more get status 429.")
    ] = 256,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of pages whose scripts may call (CORS), or *; repeatable."),
    ] = None,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Largest body of a call, in MB.")] = 4.0,
    vllm_metrics: Annotated[
        bool, typer.Option("--vllm-metrics", help="Give the metrics under vLLM's names too.")
    ] = False,
    otlp_traces_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenTelemetry collector to tell of every answer, such as http://localhost:4318/v1/traces.",
        ),
    ] = None,
    dtype: EngineDtype = None,
    device: Device = "cpu",
    rebalance: RebalanceText = "off",
    schedule: EngineSchedule = None,
    transport: Transport = "auto",
    dispatcher: EngineDispatcher = None,
    row_precision: RowPrecision = None,
) -> None:
    """Serve a MoE model over ranks, by OpenAI's API: /v1/completions, /v1/chat/completions.

    A key that calls must carry is read from the environment, WINGSPAN_API_KEY. On SIGTERM or Ctrl-C no new calls are
    taken, and those under way are answered.

    Examples:

      wingspan serve models/tiny --ranks 8

      curl -s localhost:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "def main():"}'

      wingspan plan models/tiny --gpus 8 --out d.json && wingspan serve d.json --port 8001

      wingspan serve models/tiny --ranks 12 --rebalance auto
    """
    from wingspan.cli.serve_job import Listen, execute
    from wingspan.runtime.setup.setup import Asked

    execute(
        Asked(
            source,
            checkpoint=checkpoint,
            ranks=ranks,
            ranks_per_node=ranks_per_node,
            experts_per_rank=experts_per_rank,
            placement=placement,
            schedule=schedule,
            dispatcher=dispatcher,
            dtype=dtype,
            row_precision=row_precision,
            rebalance=rebalance,
            device=device,
            transport=transport,
        ),
        Listen(
            host=host,
            port=port,
            anybody=anybody,
            name=model_name,
            max_waiting=max_waiting,
            origins=tuple(allow_origin or ()),
            most_body_bytes=int(max_body_mb * 1e6),
            vllm_metrics=vllm_metrics,
            traces_endpoint=otlp_traces_endpoint,
        ),
        sequences_per_rank=max_sequences,
        tokens_per_step=step_tokens,
        kv_tokens_per_rank=kv_tokens_per_rank,
        prefix_caching=prefix_caching,
    )
