"""`wingspan plan`: which EP size, does it fit, how fast is it, and what to change if it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wingspan.cli.described import described
from wingspan.cli.options import Csv, Json, Price

if TYPE_CHECKING:
    from wingspan.describe import Description


_Phase = Annotated[
    str | None,
    typer.Option(
        "--phase",
        help="prefill, decode (default), or train: EP x DP x PP, recomputing and ZeRO; --context are then the "
        "tokens of a sequence, and --total-sequences the global batch (default 8 per GPU).",
    ),
]


@described(without=("ranks", "expected_loads", "schedule", "attention_ranks"), phase=_Phase)
def plan(
    *,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1, help="GPUs to spend, in EP groups side by side (default: as many as the cluster says)."
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            min=1,
            help="Plan for requests: tokens of a prompt.",
        ),
    ] = None,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            "--output-tokens",
            min=1,
            help="Plan for requests: tokens of an output.",
        ),
    ] = None,
    ttft: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="Of requests: longest time to the first token, in seconds, without a queue."
        ),
    ] = None,
    tpot: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Of requests: longest time per further token, in seconds."),
    ] = None,
    said: Description,
    longest_step_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="Leave out steps longer than this (decode: time per output token)."),
    ] = None,
    price: Price = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write the best deployment as a file; of requests whose phases are split, both as files.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write choices and the best one's step as one self-contained page.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare EP sizes on a number of GPUs: memory, speed, best choice; or groups of GPUs for requests and limits.

    Beside each EP size stands TP: every expert cut over as many GPUs (--expert-tp 2: over pairs, and spread over
    these). Slots per GPU, shared attention, dispatcher and schedule are chosen; without --tokens-per-gpu the batch too,
    up to what memory holds. With --prompt-tokens and --output-tokens it is for requests of such a length: prefill and
    decode split over groups at every ratio, or together. A file that plan wrote gives the same figures
    again (of requests either file, those of all groups), and options change what it was to keep.

    Examples:

      wingspan plan deepseek-v3 --gpus 64

      wingspan plan deepseek-v3 --gpus 96 --prompt-tokens 2000 --output-tokens 500 --ttft 2 --tpot 0.05

      wingspan plan seed --cluster seed-ideal --tokens-per-gpu 16 --context 1024

      wingspan plan qwen3-235b-a22b --phase prefill --out best.json

      wingspan plan deepseek-v3 --phase train --cluster h800 --gpus 2048
    """
    from wingspan.cli import plan_job
    from wingspan.cli.outputs import check_one_format, check_outputs

    check_outputs(out, html)
    check_one_format(as_json, as_csv)
    if said.phase == "train":
        _train(said, gpus, as_json=as_json, as_csv=as_csv)
        return
    shown = plan_job.Shown(out, html, price, as_json=as_json, as_csv=as_csv)
    goal = plan_job.goal_of(said, (prompt_tokens, output_tokens), (ttft, tpot), longest_step_ms)
    if goal is not None:
        plan_job.for_requests(said, gpus, goal, shown)
    else:
        plan_job.for_steps(said, gpus, longest_step_ms, shown)


def _train(said: Description, gpus: int | None, *, as_json: bool, as_csv: bool) -> None:
    from wingspan.cli import plan_training
    from wingspan.front import plan_training as make

    plan = make(said, gpus)
    if as_json:
        print(plan_training.to_json(plan))
    elif as_csv:
        plan_training.print_csv(plan)
    else:
        plan_training.show(plan)
