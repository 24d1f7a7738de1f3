"""`wingspan run`: a real Mixture-of-Experts model over real ranks, one expert per rank per layer."""

from __future__ import annotations

from pathlib import Path
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
    RebalanceText,
    RowPrecision,
)
from wingspan.cli.options import Device, Json, RanksPerNode, Transport, WaitSeconds


def run(
    source: EngineSource,
    checkpoint: Checkpoint = None,
    ranks: EngineRanks = None,
    experts_per_rank: EngineSlots = None,
    ranks_per_node: RanksPerNode = None,
    placement: EnginePlacement = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Text to continue; repeatable.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="File with one prompt per line; - reads standard input.")
    ] = None,
    prompt_ids: Annotated[
        list[str] | None, typer.Option(help="A prompt as token ids, 5,9,17; repeatable; needs no tokenizer.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens to add to each prompt.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample among the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample within this share of probability.")] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Sample among tokens at least this share as likely as the likeliest."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    dtype: EngineDtype = None,
    device: Device = "cpu",
    rebalance: RebalanceText = "off",
    schedule: EngineSchedule = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="For --schedule auto: cluster file of this machine (wingspan calibrate), or a preset."
        ),
    ] = None,
    transport: Transport = "auto",
    dispatcher: EngineDispatcher = None,
    row_precision: RowPrecision = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare with the model in a single process; exit 1 if it differs."),
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome/Perfetto trace of every operation and transfer.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write timeline, breakdown, bytes, memory and load as one self-contained page."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            envvar="WINGSPAN_REPORT", help="Write the result and its reports into this JSON file too."
        ),
    ] = None,
    wait_seconds: WaitSeconds = None,
    as_json: Json = False,
) -> None:
    """Run a MoE model with its experts spread over ranks, and complete text.

    Examples:

      wingspan run models/tiny --ranks 8 --prompt "def main():" --check

      wingspan plan models/tiny --gpus 8 --out d.json && wingspan run d.json --prompt "def main():"

      wingspan run models/tiny --placement placement.json --prompt "import "

      wingspan run models/tiny --ranks 2 --experts-per-rank 4 --prompt "import "

      wingspan run models/tiny --ranks 12 --rebalance auto --prompt "def main():" --max-new-tokens 200

      torchrun --nproc-per-node 8 -m wingspan.cli.main run models/tiny --prompt "def main():"
    """
    from wingspan.cli.run_job import Arguments, execute

    execute(
        Arguments(
            source=source,
            checkpoint=checkpoint,
            ranks=ranks,
            experts_per_rank=experts_per_rank,
            ranks_per_node=ranks_per_node,
            placement=placement,
            texts=prompt or [],
            prompts_file=prompts_file,
            id_texts=prompt_ids or [],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            dtype=dtype,
            device=device,
            rebalance=rebalance,
            schedule=schedule,
            cluster=cluster,
            transport=transport,
            dispatcher=dispatcher,
            row_precision=row_precision,
            check=check,
            trace=trace,
            html=html,
            out=out,
            wait_seconds=wait_seconds,
            as_json=as_json,
        )
    )
