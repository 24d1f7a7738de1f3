"""The work behind `wingspan import`: read, write the kind that was found, say what it was."""

from __future__ import annotations

from pathlib import Path

from wingspan.cli.placement_file import write_placement
from wingspan.errors import InputError
from wingspan.interop.importing import import_from
from wingspan.interop.physical import ImportOptions
from wingspan.interop.recorded_load import RecordedLoad, write_load
from wingspan.placement.placement import Placement
from wingspan.routing.load import imbalance
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import write_trace

_MOST_WINDOWS = 64


def execute(path: Path, engine: str, out: Path, options: ImportOptions) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist; create it")
    found = import_from(engine, path, options)
    if isinstance(found, Placement):
        write_placement(found, out)
        print(f"{out}: placement, {_placement(found)}")
    elif isinstance(found, RoutingTrace):
        write_trace(out, found.chunks(65_536), f"imported from {engine}, {path}")
        print(f"{out}: routing trace, {_trace(found)}")
    else:
        write_load(found.pooled(_MOST_WINDOWS), out)
        print(f"{out}: recorded load, {_load(found)}")


def _placement(found: Placement) -> str:
    return (
        f"{found.num_layers} MoE layers, {found.num_experts} experts on {found.num_ranks} ranks x "
        f"{found.slots_per_rank} slots"
    )


def _trace(found: RoutingTrace) -> str:
    return (
        f"{found.num_tokens:,} tokens, {found.num_layers} MoE layers, top-{found.top_k} of {found.num_experts} "
        f"experts, {found.num_ranks} home ranks"
    )


def _load(found: RecordedLoad) -> str:
    moments, layers, experts = found.load_WLE.shape
    return (
        f"{moments} moments in at most {_MOST_WINDOWS} windows, {layers} MoE layers "
        f"({found.moe_layers[0]}..{found.moe_layers[-1]} of the model), {experts} experts, "
        f"{int(found.load_LE.sum()):,} choices, max/mean {imbalance(found.load_LE):.2f}"
    )
