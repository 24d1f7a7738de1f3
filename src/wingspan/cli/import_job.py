"""The work behind `wingspan import`: read, write the kind that was found, say what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.importing import import_from
from wingspan.interop.physical import ImportOptions, NotSaidError
from wingspan.placement_file import write_placement
from wingspan.routing.load import imbalance
from wingspan.routing.recorded_load import RecordedLoad, write_load
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import write_trace
from wingspan.specs.stored_placement import StoredPlacement, shown_layers

_MOST_WINDOWS = 64
_OPTIONS = {
    "num_ranks": "--ranks",
    "num_experts": "--experts",
    "moe_layers": "--moe-layers",
    "hidden_layers": "--hidden-layers",
    "ranks_per_node": "--ranks-per-node",
    "model_class": "--model-class",
}
"""Which option says what a file leaves open."""


class _Watched(ImportOptions):
    """Options that remember which of them were asked for: which ones a file needs shows only in the file."""

    def __getattribute__(self, name: str) -> Any:
        if name in _OPTIONS:
            vars(self).setdefault("used", set()).add(name)
        return super().__getattribute__(name)

    def check_all_used(self, path: Path) -> None:
        """Raise `InputError` for an option that was given and that nobody asked for."""
        given = {name for name in _OPTIONS if vars(self)[name] is not None}
        unused = sorted(given - vars(self).get("used", set()))
        if unused:
            raise InputError(f"{_OPTIONS[unused[0]]}: what {path} holds has no use for it; leave it out")


def execute(path: Path, engine: str, out: Path, options: ImportOptions) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    watched = _Watched(**vars(options))
    try:
        found = import_from(engine, path, watched)
    except NotSaidError as error:
        raise InputError(f"{error}; add {_OPTIONS[error.field]}") from None
    watched.check_all_used(path)
    if isinstance(found, StoredPlacement):
        write_placement(found, out)
        print(f"{out}: placement, {_placement(found)}")
        remarks = found.remarks
    elif isinstance(found, RoutingTrace):
        write_trace(out, found.chunks(65_536), f"imported from {engine}, {path}")
        print(f"{out}: routing trace, {_trace(found)}")
        remarks = ()
    else:
        write_load(found.pooled(_MOST_WINDOWS), out)
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
        f"{moments} moments in at most {_MOST_WINDOWS} windows, {layers} MoE layers "
        f"({which}), {experts} experts, "
        f"{int(found.load_LE.sum()):,} choices, max/mean {imbalance(found.load_LE):.2f}"
    )
