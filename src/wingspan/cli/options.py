"""Options that several commands have: each is declared here, once, so that a name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wingspan.cli.completion import cluster_names, source_names

Source = Annotated[
    str,
    typer.Argument(
        help="A model preset, a config.json or its folder, a deployment file or a published deployment (wingspan "
        "presets deployments); options then change what it says.",
        autocompletion=source_names,
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Cluster preset or YAML file, also with what differs: h200+efa (default h100-sxm).",
        autocompletion=cluster_names,
    ),
]
Ranks = Annotated[
    int | None,
    typer.Option("--ranks", min=1, help="EP size (default: a rank per expert, in whole nodes)."),
]
ExpertsPerRank = Annotated[
    int | None,
    typer.Option(
        "--experts-per-rank", min=1, help="Slots per (layer, rank) (default: as few as hold all experts)."
    ),
]
Phase = Annotated[str | None, typer.Option(help="prefill or decode (default).")]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-gpu",
        "-b",
        min=1,
        help="New tokens per GPU; in decode one per sequence (default 64; in prefill 4096, or one prompt).",
    ),
]
TotalSequences = Annotated[
    int | None,
    typer.Option(
        "--total-sequences",
        min=1,
        help="Sequences of a step over all GPUs, instead of --tokens-per-gpu; with fewer than GPUs some have none.",
    ),
]
TokensSpread = Annotated[
    float | None,
    typer.Option(
        "--tokens-spread", min=0.0, help="Standard deviation / mean of the GPUs' tokens (default 0)."
    ),
]
ContextTokens = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=1,
        help="Mean tokens of context per sequence; in prefill, of a prompt (default 4096, or the most that the "
        "model and the step hold).",
    ),
]
Spread = Annotated[
    float | None, typer.Option("--context-spread", min=0.0, help="Standard deviation / mean of contexts.")
]
RoutingText = Annotated[
    str | None,
    typer.Option(
        "--routing",
        help="uniform (default), power-law:EXPONENT, log-normal:SIGMA, log-normal:SIGMA+GROUPS, a routing trace, or "
        "loads: what import wrote, or a matrix, layers x experts (JSON, .npy, CSV, Parquet).",
    ),
]
PlacementName = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help="linear (default), round-robin, random, balanced (by load, with replicas in spare slots), or the JSON "
        "file that place or import wrote.",
    ),
]
ExpectedLoads = Annotated[
    bool, typer.Option("--expected-loads", help="Loads exactly as the routing's shares, not one draw.")
]
ScheduleText = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="sequential (default), chunks:N (a layer's rows leave in N parts), two-batch, single-batch or fused.",
    ),
]
DispatcherName = Annotated[
    str | None,
    typer.Option(
        "--dispatcher", help="flat (default in decode), deduplicated or hierarchical (default in prefill)."
    ),
]
AttentionRanks = Annotated[
    int | None, typer.Option(min=1, help="GPUs of a node that share attention; 1 = data-parallel.")
]
ExpertTensorParallel = Annotated[
    int | None,
    typer.Option(
        "--expert-tp",
        min=1,
        help="Neighbouring GPUs over which every expert's width is cut (default 1); with as many --ranks nothing is "
        "dispatched: TP, where --attention-ranks is as many too.",
    ),
]
FromWeights = Annotated[
    bool,
    typer.Option(
        "--from-weights",
        help="Count the model's sizes from its checkpoint's tensors; those of a type that is not known are anyway.",
    ),
]
SharedInSlots = Annotated[
    bool,
    typer.Option(
        "--shared-in-slots",
        help="Shared experts lie in slots as the others do, and every token sends a row to a copy.",
    ),
]
MtpTokens = Annotated[
    int | None,
    typer.Option(
        "--mtp",
        min=0,
        max=16,
        help="Tokens that each sequence tries ahead in a decode step (MTP; default 0).",
    ),
]
Acceptance = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1.0,
        help="Share of the tried tokens that are right, where all before are (default 0.85).",
    ),
]
PrecisionText = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp8, nvfp4, mxfp4, int8, w4a16 or bf16, and parts: fp8,experts=nvfp4,kv=bf16. Parts are weights (all of "
        "attention, dense, shared, experts), activations, dispatch, combine, kv, core (default: as published).",
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="Whose work beside the kernels is counted: none (default), sglang, vllm, trtllm, or a file that calibrate "
        "--from-bench wrote.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all draws (default 0).")]

Redundant = Annotated[
    int | None,
    typer.Option(
        "--redundant",
        min=0,
        help="Slots of a layer beyond its experts, in all: they hold replicas. Says --experts-per-rank otherwise.",
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price",
        min=0.0,
        help="Price of a GPU hour: tables then say what a million tokens cost, in its currency.",
    ),
]

Html = Annotated[Path | None, typer.Option("--html", help="Write pictures as one self-contained page.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]

Csv = Annotated[bool, typer.Option("--csv", help="One line per rank, point or load on stdout, nothing else.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
WeightType = Annotated[str, typer.Option("--dtype", help="auto (the checkpoint's), float32 or bfloat16.")]
Transport = Annotated[
    str,
    typer.Option(
        "--transport", help="How rows move: auto, torch (gloo or NCCL), shm (shared memory in nodes), mpi."
    ),
]
LaunchedRanks = Annotated[
    int | None,
    typer.Option(
        "--ranks",
        help="Ranks to start on this machine; under torchrun, mpirun or Slurm theirs are used.",
    ),
]
RanksPerNode = Annotated[
    int | None,
    typer.Option(
        "--ranks-per-node",
        min=1,
        help="How many ranks count as one node (default: the deployment's, else all that share a machine).",
    ),
]
WaitSeconds = Annotated[
    float | None,
    typer.Option(
        "--wait-seconds",
        min=1,
        help="Under torchrun, mpirun or Slurm: how long ranks wait for one that does not come (default 120).",
    ),
]
