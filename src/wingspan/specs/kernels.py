"""How far kernels stay behind the hardware's figures: constants fitted from published measurements.

The `Cluster` says what the hardware sustains on large work; `Kernels` says what smaller work loses: launches,
tiles that are only partly filled, synchronisation. `ideal` loses nothing; `h100` is fitted (docs/cost-model.md).
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated

from pydantic import Field

from wingspan.errors import InputError
from wingspan.specs.reading import Spec, parse, read_yaml

Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class MatmulKernel(Spec):
    """A matrix product, cut into tiles of (rows, columns) that the processors take in waves."""

    source: str
    launch_seconds: Seconds = Field(description="from the call to the first tile, and after the last")
    row_tile: int = Field(ge=1, description="rows of a tile; fewer rows cost as many")
    column_tile: int = Field(ge=1, description="columns of a tile")
    processors: int = Field(ge=0, description="tiles that run at once; 0 = work divides without remainder")
    inner_step_seconds: Seconds = Field(
        description="least time of one tile per element of the inner dimension"
    )


class ExpertsKernel(Spec):
    """All experts of one rank: two or three products per expert, the activation between, rows in and out."""

    source: str
    small_batch_launch_seconds: Seconds = Field(description="decode kernels, launched from a recorded graph")
    large_batch_launch_seconds: Seconds = Field(
        description="prefill kernels with their sorting, from the host"
    )
    row_alignment: int = Field(
        ge=1, description="prefill kernels pad each expert's rows to a multiple of this"
    )


class AttentionKernel(Spec):
    """The attention core: queries against keys and values, without the projections around it."""

    source: str
    launch_seconds: Seconds
    prefill_share: Share = Field(description="share of the sustained FLOP/s that a long prefill reaches")
    decode_share: Share = Field(
        description="share of the sustained FLOP/s that a compute-bound decode reaches"
    )


class ExchangeKernel(Spec):
    """One way to dispatch and combine."""

    source: str
    launch_seconds: Seconds
    latency_seconds_per_domain_doubling: Seconds = Field(
        description="added each time the number of scale-up domains doubles: more peers to wait for"
    )
    scale_up_share: Share = Field(description="share of the scale-up link's sustained rate")
    scale_out_share: Share = Field(description="share of the network card's sustained rate")


class ContentionKernel(Spec):
    """What a compute and a communication kernel cost each other while both run on one GPU."""

    source: str
    compute_slowdown: float = Field(ge=1)
    communication_slowdown: float = Field(ge=1)


class Kernels(Spec):
    """The kernels of one kind of GPU."""

    name: str
    matmul: MatmulKernel
    experts: ExpertsKernel
    attention: AttentionKernel
    normal: ExchangeKernel = Field(
        description="large batches: one copy per (token, domain), forwarded inside"
    )
    low_latency: ExchangeKernel = Field(
        description="small batches: one copy per (token, expert), sent directly"
    )
    contention: ContentionKernel


def kernels_named(name: str) -> Kernels:
    """A preset of kernel constants.

    Raises:
        InputError: there is no such preset; the line names those there are.
    """
    folder = resources.files("wingspan.specs") / "presets" / "kernels"
    known = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f"kernels {name}: no such preset; use one of {', '.join(known)}")
    with resources.as_file(folder / f"{name}.yaml") as path:
        return parse(Kernels, read_yaml(path), f"kernels {name}")
