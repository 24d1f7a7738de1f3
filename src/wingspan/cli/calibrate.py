"""`wingspan calibrate`: a cluster file from measuring this machine, or an engine file from a benchmark's results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wingspan.cli.described import described
from wingspan.cli.options import Device, Json, RanksPerNode, Transport, WaitSeconds

if TYPE_CHECKING:
    from wingspan.describe import Description

_Source = Annotated[
    str | None,
    typer.Argument(
        help="With --from-bench: what was measured, a model or a deployment file, as simulate takes it."
    ),
]
_Ranks = Annotated[
    int | None,
    typer.Option(
        "--ranks",
        help="Ranks to start on this machine; under torchrun, mpirun or Slurm theirs are used. With --from-bench: "
        "EP size of what was measured.",
    ),
]


@described(
    without=("redundant", "expected_loads", "tokens_spread", "context_spread", "shared_in_slots"),
    source=_Source,
    ranks=_Ranks,
)
def calibrate(
    *,
    said: Description,
    from_bench: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-bench",
            help="Measure nothing: fit an engine to this file, of vllm bench serve, sglang.bench_serving, genai-perf "
            "or aiperf, or a trace of torch.profiler; may be given several times.",
        ),
    ] = None,
    max_sequences: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the server that was loaded: most sequences at a time, per GPU (default 128)."
        ),
    ] = None,
    step_tokens: Annotated[
        int | None,
        typer.Option(
            min=2, help="Of the server that was loaded: most tokens of a step, per GPU (default 1024)."
        ),
    ] = None,
    ranks_per_node: RanksPerNode = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the cluster or the engine to (default: standard output)."),
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="Name of the cluster in the file.")] = "measured",
    device: Device = "cpu",
    transport: Transport = "auto",
    wait_seconds: WaitSeconds = None,
    as_json: Json = False,
) -> None:
    """Measure matrix products, memory, and latency and bandwidth of each link level, all ranks at once.

    The file can be given wherever a cluster is asked for.

    With --from-bench nothing is measured here. What a benchmark measured on a server, or a profiler in a step, is
    predicted, and what the engine adds is fitted to it: that file can be given wherever an engine is.

    Examples:

      wingspan calibrate --ranks 4 --ranks-per-node 2 --out here.yaml

      torchrun --nnodes 2 --nproc-per-node 8 -m wingspan.cli.main calibrate --device cuda --out cluster.yaml

      wingspan calibrate deepseek-v3 --ranks 64 --from-bench 64.json --from-bench 512.json --out engine.yaml
    """
    if from_bench:
        from wingspan.cli.calibrate_bench import FromBench, fit_engine

        fit_engine(FromBench(said, from_bench, max_sequences, step_tokens, out, as_json))
        return
    from wingspan.cli.calibrate_job import execute

    execute(said.ranks, ranks_per_node, transport, out, cluster_name, device, wait_seconds)
