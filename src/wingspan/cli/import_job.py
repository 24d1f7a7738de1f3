"""The work behind `wingspan import`: read, write the kind that was found, say what it was."""

from __future__ import annotations

from pathlib import Path

from wingspan.interop.importing import import_all_said
from wingspan.interop.physical import ImportOptions
from wingspan.placement_file import write_placement
from wingspan.routing.load import imbalance
from wingspan.routing.recorded_load import MOST_WINDOWS, RecordedLoad, write_load
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import write_trace
from wingspan.specs.stored_placement import StoredPlacement, shown_layers


def execute(path: Path, engine: str, out: Path, options: ImportOptions) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    found = import_all_said(engine, path, options)
    if isinstance(found, StoredPlacement):
        write_placement(found, out)
        print(f"{out}: placement, {_placement(found)}")
        remarks = found.remarks
    elif isinstance(found, RoutingTrace):
        write_trace(out, found.chunks(65_536), f"imported from {engine}, {path}")
        print(f"{out}: routing trace, {_trace(found)}")
        remarks = ()
    else:
        write_load(found.pooled(), out)
        print(f"{out}: recorded load, {_load(found)}")
        remarks = found.remarks
    for remark in remarks:
        print(f"- {remark}")


def _placement(stored: StoredPlacement) -> str:
    found, numbers = stored.placement, stored.moe_layers
    which = (
        "where they lie in the model is not known"
        if numbers is None
        else f"layers {shown_layers(numbers)} of the model"
    )
    layers = "layer" if found.num_layers == 1 else "layers"
    return (
        f"{found.num_layers} MoE {layers}, {found.num_experts} experts on {found.num_ranks} ranks x "
        f"{found.slots_per_rank} slots; {which}"
    )


def _trace(found: RoutingTrace) -> str:
    return (
        f"{found.num_tokens:,} tokens, {found.num_layers} MoE layers, top-{found.top_k} of {found.num_experts} "
        f"experts, {found.num_ranks} home ranks"
    )


def _load(found: RecordedLoad) -> str:
    moments, layers, experts = found.load_WLE.shape
    which = (
        "all that it counts" if found.moe_layers is None else f"{shown_layers(found.moe_layers)} of the model"
    )
    return (
        f"{moments} moments in at most {MOST_WINDOWS} windows, {layers} MoE layers "
        f"({which}), {experts} experts, "
        f"{int(found.load_LE.sum()):,} choices, max/mean {imbalance(found.load_LE):.2f}"
    )
