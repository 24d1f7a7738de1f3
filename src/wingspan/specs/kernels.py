"""How far kernels stay behind the hardware's figures: constants fitted from published measurements.

The `Cluster` says what the hardware sustains on large work; `Kernels` says what smaller work loses: launches,
tiles that are only partly filled, synchronisation. `ideal` loses nothing; `h100` is fitted (docs/cost-model.md).
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated, TypeVar

from pydantic import Field

from wingspan.errors import InputError
from wingspan.specs.precision import Precision
from wingspan.specs.reading import Spec, parse, read_yaml

Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Tiles = Annotated[tuple[int, ...], Field(min_length=1)]

SpecT = TypeVar("SpecT", bound=Spec)


class MatmulKernel(Spec):
    """A matrix product, cut into tiles of (rows, columns) that the processors take in waves."""

    source: str
    launch_seconds: Seconds = Field(description="beyond the work itself, launched from the host")
    recorded_launch_seconds: Seconds = Field(description="the same, launched from a recorded graph (decode)")
    bare_launch_seconds: Seconds | None = Field(
        default=None,
        description="the same of a norm, a router or another product of 16-bit rows, where "
        "`recorded_launch_seconds` holds small kernels beside a product (quantising); None: as that",
    )
    row_tiles: Tiles = Field(description="rows of a tile, the best is taken; a part of a tile costs as much")
    column_tiles: Tiles = Field(description="columns of a tile, the best is taken")
    processors: int = Field(ge=0, description="tiles that run at once; 0 = work divides without remainder")
    inner_step_seconds: Seconds = Field(
        description="least time of one tile per element of the inner dimension"
    )
    unhidden_share: Fraction = Field(
        description="of the shorter of computing and reading, what does not hide behind the longer"
    )
    arithmetic_shares: dict[Precision, Share] = Field(
        default={}, description="share of the sustained FLOP/s that plain products reach, where it is less"
    )


class ExpertsKernel(Spec):
    """All experts of one rank: two or three products per expert, the activation between, rows in and out."""

    source: str
    recorded_launch_seconds: Seconds = Field(description="small batches (decode), from a recorded graph")
    launch_seconds: Seconds = Field(description="large batches (prefill) with their sorting, on the device")
    host_seconds: Seconds = Field(description="large batches: the host needs this long to launch a layer")
    row_alignment: int = Field(ge=1, description="large batches: each expert's rows fill multiples of this")
    copy_passes: float = Field(
        ge=0, description="large batches: times each row is read and written to sort and to sum it"
    )
    arithmetic_shares: dict[Precision, Share] = Field(
        default={}, description="share of the sustained FLOP/s that grouped products reach, where it is less"
    )
    memory_share: Share = Field(
        default=1.0, description="share of the sustained memory bandwidth at which their weights are read"
    )


class AttentionKernel(Spec):
    """The attention core: queries against keys and values, without the projections around it."""

    source: str
    decode_launch_seconds: Seconds
    decode_share: Share = Field(
        description="share of the sustained FLOP/s that a compute-bound decode reaches"
    )
    decode_unhidden_share: Fraction = Field(description="as `MatmulKernel.unhidden_share`, for decode")
    prefill_launch_seconds: Seconds
    prefill_share: Share = Field(description="share of the sustained FLOP/s that a long prefill reaches")
    query_tile: int = Field(ge=1, description="prefill: a sequence's new tokens fill multiples of this")
    sequence_seconds: Seconds = Field(description="prefill: what each further sequence of a batch costs")
    layer_seconds: Seconds = Field(description="prefill: what a layer's attention costs beyond its kernels")
    host_seconds: Seconds = Field(
        description="prefill: the host needs this long to launch a layer's attention"
    )


class ExchangePhase(Spec):
    """A dispatch or a combine of one kind of kernel."""

    launch_seconds: Seconds = Field(description="of an empty exchange inside one scale-up domain")
    across_seconds: Seconds = Field(description="more as soon as a second domain takes part")
    doubling_seconds: Seconds = Field(
        description="more for each doubling of the domains: more peers to await"
    )
    scale_up_share: Share = Field(description="share of the scale-up link's sustained rate")
    scale_out_share: Share = Field(description="share of the network card's sustained rate")
    forward_bytes_per_second_per_processor: float = Field(
        ge=0,
        description="rate at which one processor forwards rows inside a domain; 0 = only the link limits",
    )
    copy_bytes_per_second_per_processor: float = Field(
        default=0.0,
        ge=0,
        description="the same inside one domain, where rows go straight to their ranks; 0 = only the link limits",
    )
    processor_seconds: Seconds = Field(
        default=0.0, description="in which its kernels hold the processors, whatever they move"
    )
    processor_bytes_per_second: float = Field(
        default=0.0,
        ge=0,
        description="of the rows that a rank sends and receives, while its kernels hold the processors; the rest of "
        "the exchange slows no computing. 0 = they are held all along, as `contention` says",
    )


class ExchangeKernel(Spec):
    """One way to move rows to the experts and back."""

    source: str
    processors: int = Field(ge=0, description="of the GPU, busy with the exchange while it lasts")
    back_pressure: float = Field(
        default=0.0,
        ge=0,
        description="between domains: how far all transfers are paced by the fullest rank, whose buffers hold up who "
        "sends to it; 1: as if every rank were as full; above: its queue also holds up rows for others",
    )
    slower_per_doubling: float = Field(
        default=0.0,
        ge=0,
        description="inside a domain: how much longer the same bytes take for each doubling of its ranks beyond 8",
    )
    dispatch: ExchangePhase
    combine: ExchangePhase


class OneShotReduce(Spec):
    """An all-reduce in which every rank reads what all others have, at once: one wait, but N - 1 times the bytes."""

    source: str
    launch_seconds: Seconds
    doubling_seconds: Seconds = Field(description="more for each doubling of the ranks")
    scale_up_share: Share


class BulkCollective(Spec):
    """The protocol for many bytes, which starts later and moves them faster."""

    launch_seconds: Seconds = Field(description="beyond the start of the one for few")
    scale_up_share: Share


class CollectiveKernel(Spec):
    """Collectives inside a scale-up domain, for tensor-parallel attention."""

    source: str
    launch_seconds: Seconds
    doubling_seconds: Seconds = Field(description="more for each doubling of the ranks")
    all_reduce_doubling: float = Field(
        default=1.0,
        ge=0,
        description="times `doubling_seconds` that each doubling costs an all-reduce: it waits twice",
    )
    scale_up_share: Share = Field(description="of the sustained rate, by the protocol for few bytes")
    bulk: BulkCollective | None = Field(
        default=None, description="taken where it is faster; None: one protocol"
    )
    one_shot: OneShotReduce | None = Field(
        default=None,
        description="an engine's own all-reduce of few rows inside a domain; None: it has the other",
    )


class SmallKernels(Spec):
    """What a layer runs beside products, attention and exchanges: quantising, rotary embedding, top-k, permutation."""

    source: str = "none"
    layer_seconds: Seconds = Field(
        default=0.0, description="decode: of each pass of a layer, with the gaps between its kernels"
    )
    row_passes: float = Field(
        default=0.0, ge=0, description="decode: times each token's row is read or written in them"
    )


class EngineWork(Spec):
    """What an engine spends beyond its kernels; a deployment's engine sets it."""

    step_seconds: Seconds = 0.0
    agreement_seconds: Seconds = 0.0
    sequence_seconds: Seconds = 0.0
    token_seconds: Seconds = 0.0
    expert_seconds: Seconds = 0.0
    layer_seconds: Seconds = 0.0


class ContentionKernel(Spec):
    """What a compute and a communication kernel cost each other while both run on one GPU."""

    source: str
    compute_slowdown: float = Field(ge=1)
    communication_slowdown: float = Field(ge=1)


class Accuracy(Spec):
    """How well one operation's predictions met measurements, and over which sizes those reach."""

    source: str
    size: str = Field(description="what `low` and `high` count")
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    relative_error: float = Field(ge=0, description="9 of 10 measurements lie within it")


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
    collective: CollectiveKernel
    contention: ContentionKernel
    small: SmallKernels = SmallKernels()
    engine: EngineWork = EngineWork()
    accuracy: dict[str, Accuracy] = Field(
        default={}, description="per operation; one that is not named has no error bar"
    )


def longer(part: SpecT, times: float) -> SpecT:
    """Every duration of a kernel's constants, so many times as long; one that it leaves to another stays so."""
    given = {name: getattr(part, name) for name in type(part).model_fields if name.endswith("_seconds")}
    lasting = {name: seconds * times for name, seconds in given.items() if seconds is not None}
    return part.model_copy(update=lasting)


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
