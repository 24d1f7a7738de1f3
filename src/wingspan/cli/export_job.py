"""The work behind `wingspan export`: a placement's file, completed by options, to an engine's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wingspan.deployment import is_deployment, load_deployment
from wingspan.errors import InputError
from wingspan.interop.export import completed, export, export_filled, target
from wingspan.placement_file import read_placement
from wingspan.specs.placement import EMPTY
from wingspan.specs.stored_placement import shown_layers


def execute(path: Path, engine: str, out: Path, given: Mapping[str, Any], *, fill: bool) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    target(engine)
    if is_deployment(str(path)) and load_deployment(path).model.experts.shared_slots:
        raise InputError(
            f"{path}: its shared experts lie in slots, and {engine} has them beside; plan it without"
        )
    stored = read_placement(path)
    try:
        stored = completed(stored, engine, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    placement = stored.placement
    empty = bool((placement.slots_LRS == EMPTY).any())
    if fill and not empty:
        raise InputError(f"--fill-empty: {path} has no empty slot; leave it out")
    if empty and not fill:
        raise InputError(
            f"{path}: it has empty slots, and {engine} knows none; --fill-empty puts replicas there"
        )
    command = export_filled(stored, engine, out).command if fill else export(stored, engine, out)
    which = f" ({shown_layers(stored.moe_layers)} of the model)" if stored.moe_layers is not None else ""
    physical = placement.num_ranks * placement.slots_per_rank
    print(
        f"{out}: {placement.num_layers} MoE layers{which}, {placement.num_experts} experts on {physical} slots of "
        f"{placement.num_ranks} ranks; reads back as the same placement\n{command}"
    )
