"""`wingspan serve`: an OpenAI-compatible server over ranks of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from wingspan.cli.options import Transport, WeightType


def serve(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of a checkpoint in the Hugging Face format, or a deployment file; options then change the "
            "file's values.",
        ),
    ],
    ranks: Annotated[
        int | None,
        typer.Option(help="Ranks to start on this machine (default: the deployment's, else one per core)."),
    ] = None,
    experts_per_rank: Annotated[int | None, typer.Option(help="Slots per rank and layer.")] = None,
    placement: Annotated[
        str | None,
        typer.Option(
            help="linear (default), round-robin, random, balanced, or a file that place, import or plan wrote."
        ),
    ] = None,
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
    ] = 16,
    step_tokens: Annotated[
        int, typer.Option(min=2, help="Most tokens of a step, per rank: prompts are cut into chunks of it.")
    ] = 512,
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
    schedule: Annotated[
        str | None, typer.Option(help="sequential (default, or the deployment's), chunks:N or two-batch.")
    ] = None,
    dispatcher: Annotated[
        str | None, typer.Option(help="flat, deduplicated, hierarchical, or auto (default).")
    ] = None,
    transport: Transport = "auto",
    dtype: WeightType = "auto",
) -> None:
    """Serve a MoE model over ranks, by OpenAI's API: /v1/completions, /v1/chat/completions.

    A key that calls must carry is read from the environment, WINGSPAN_API_KEY. On SIGTERM or Ctrl-C no new calls are
    taken, and those under way are answered.

    Examples:

      wingspan serve models/tiny --ranks 8

      curl -s localhost:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "def main():"}'

      wingspan plan models/tiny --gpus 8 --out d.json && wingspan serve d.json --port 8001
    """
    from wingspan.cli.run_setup import Asked, read_setup
    from wingspan.cli.serve_job import Listen, execute

    setup = read_setup(
        Asked(
            source,
            ranks=ranks,
            experts_per_rank=experts_per_rank,
            placement=placement,
            schedule=schedule,
            dispatcher=dispatcher,
            dtype=dtype,
        ),
        {},
    )
    execute(
        setup,
        Listen(
            host=host,
            port=port,
            anybody=anybody,
            name=model_name or setup.folder.resolve().name,
            max_waiting=max_waiting,
            origins=tuple(allow_origin or ()),
            most_body_bytes=int(max_body_mb * 1e6),
            vllm_metrics=vllm_metrics,
        ),
        transport=transport,
        sequences_per_rank=max_sequences,
        tokens_per_step=step_tokens,
    )
