"""`wingspan synthesize`: write a synthetic routing trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wingspan.cli.progress import Advance
    from wingspan.routing.trace import RoutingTrace

_KINDS = (
    "uniform, power-law, log-normal, communities, source-affine, balanced, hot-set, hot-rank, spread-hot, "
    "source-ragged, zero, rotating, burst"
)


def synthesize(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"One of {_KINDS}; log-normal:SIGMA, power-law:EXPONENT and source-ragged:EXPONENT say their spread."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The trace to write, Parquet.")],
    layers: Annotated[int, typer.Option(help="MoE layers.")] = 58,
    experts: Annotated[int, typer.Option(help="Logical experts per layer.")] = 256,
    experts_per_token: Annotated[int, typer.Option(help="Top-k: experts that a token chooses.")] = 8,
    tokens: Annotated[int, typer.Option(help="Tokens in all.")] = 20_000,
    ranks: Annotated[int, typer.Option(help="Home ranks.")] = 32,
    request_tokens: Annotated[int, typer.Option(help="Tokens of one request.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same trace.")] = 0,
    groups: Annotated[int | None, typer.Option(help="communities, source-affine: groups of experts.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="communities, source-affine: share of choices that ignore the group.")
    ] = None,
    hot_share: Annotated[
        float | None, typer.Option(help="hot-set, hot-rank, spread-hot, rotating, burst: weight on the hot.")
    ] = None,
    turns: Annotated[int | None, typer.Option(help="rotating: how often the hot set moves.")] = None,
    every: Annotated[int | None, typer.Option(help="burst: steps from one burst to the next.")] = None,
) -> None:
    """Write a routing trace that was drawn, not recorded (docs/routing.md describes the kinds).

    Examples:

      wingspan synthesize log-normal:0.6 --out trace.parquet

      wingspan synthesize communities --groups 40 --noise 0.3 --experts-per-token 6 --ranks 320 --out grouped.parquet

      wingspan synthesize rotating --layers 7 --experts 8 --experts-per-token 2 --ranks 8 --out small.parquet
    """
    from wingspan.cli.outputs import check_outputs
    from wingspan.cli.progress import progress
    from wingspan.routing.synthetic import TraceShape, generate
    from wingspan.routing.trace_file import write_trace
    from wingspan.routing.workloads import workload
    from wingspan.writing import is_stream

    check_outputs(out)
    given = {
        "groups": groups,
        "noise": noise,
        "hot_share": hot_share,
        "turns": turns,
        "every": every,
    }
    knobs = {name: value for name, value in given.items() if value is not None}
    shape = TraceShape(tokens, layers, experts, experts_per_token, ranks, request_tokens)
    settings = "".join(f", {name} {value:g}" for name, value in knobs.items())
    origin = f"synthetic: {kind}{settings}, seed {seed}"
    pieces = generate(shape, workload(kind, shape, seed, **knobs), seed)
    with progress("drawing tokens", tokens) as advance:
        write_trace(out, _counted(pieces, advance), origin)
    if is_stream(out):  # it may be standard output
        return
    size_bytes = out.stat().st_size
    print(
        f"{out}: {tokens:,} tokens, {layers} MoE layers, top-{experts_per_token} of {experts} experts, {ranks} home "
        f"ranks; {size_bytes / 1e6:.2f} MB ({size_bytes / tokens:.1f} MB per million tokens)"
    )


def _counted(pieces: Iterable[RoutingTrace], advance: Advance) -> Iterator[RoutingTrace]:
    for piece in pieces:
        yield piece
        advance(piece.num_tokens)
