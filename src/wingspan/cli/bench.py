"""`wingspan bench serve`: a load on an OpenAI-compatible server, ours or another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.option_rules import CheckedCommand
from wingspan.cli.options import Json

app = typer.Typer(help="Load a server, and time its answers.", no_args_is_help=True)


@app.command(cls=CheckedCommand)
def serve(
    url: Annotated[str, typer.Argument(help="Where it is: http://localhost:8000, without /v1.")],
    model_name: Annotated[
        str | None, typer.Option(help="The model's name in calls (default: the first that the server lists).")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="Requests a second; stretches a trace's times (default 1, or the trace's own)."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of a rate: keep so many requests under way, whatever their times."),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="A trace instead of drawn ones, as simulate-serving takes it."),
    ] = None,
    num_requests: Annotated[
        int | None, typer.Option(min=1, help="Draw so many (Poisson; default 100); of a trace, the first.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Mean prompt length.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean output length.")] = 32,
    length_spread: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Standard deviation / mean of both lengths.")
    ] = 0.5,
    ttft_p99: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Limit in seconds for the time to first token, for goodput."),
    ] = None,
    tpot_p99: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Limit in seconds for the time per output token, for goodput."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write what `vllm bench serve --save-result` writes, JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send requests to a server at a rate or so many at a time, and time their tokens.

    Prompts are random token ids; answers go on to the asked length (ignore_eos). A key is read from the environment,
    WINGSPAN_API_KEY.

    Examples:

      wingspan bench serve http://localhost:8000 --rate 4 --num-requests 40

      wingspan bench serve http://localhost:8000 --concurrency 16 --prompt-tokens 128 --output-tokens 64 --json

      wingspan bench serve http://localhost:8000 --requests trace.csv --rate 2 --out result.json
    """
    from wingspan.cli.bench_job import Sent, execute
    from wingspan.cli.outputs import check_outputs

    check_outputs(out)
    sent = Sent(requests, num_requests, prompt_tokens, output_tokens, length_spread, rate, concurrency, seed)
    execute(url, model_name, sent, ttft_p99=ttft_p99, tpot_p99=tpot_p99, out=out, as_json=as_json)


@app.callback()
def _bench() -> None:
    """Load a server, and time its answers."""
