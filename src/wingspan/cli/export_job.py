"""The work behind `wingspan export`: what the placement's file says, completed by options, to an engine's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.export import export, target
from wingspan.interop.physical import fill_empty
from wingspan.placement_file import read_placement
from wingspan.specs.placement import EMPTY
from wingspan.specs.stored_placement import StoredPlacement, shown_layers

_OPTIONS = {
    "moe_layers": ("--moe-layers, as 3-60", "the numbers of its MoE layers in the model"),
    "hidden_layers": ("--hidden-layers N", "how many layers the model has in all"),
    "ranks_per_node": ("--ranks-per-node N", "how many ranks share a node"),
}
"""For each field that an engine may need: the option that gives it, and what it is."""


def execute(path: Path, engine: str, out: Path, given: Mapping[str, Any], *, fill: bool) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    needs = target(engine).needs
    stored = _completed(read_placement(path), path, engine, needs, given)
    placement = stored.placement
    empty = bool((placement.slots_LRS == EMPTY).any())
    if fill and not empty:
        raise InputError(f"--fill-empty: {path} has no empty slot; leave it out")
    if fill:
        placement = fill_empty(placement)
        stored = replace(stored, placement=placement)
    elif empty:
        raise InputError(
            f"{path}: it has empty slots, and {engine} knows none; --fill-empty puts replicas there"
        )
    command = export(stored, engine, out)
    which = f" ({shown_layers(stored.moe_layers)} of the model)" if stored.moe_layers is not None else ""
    physical = placement.num_ranks * placement.slots_per_rank
    print(
        f"{out}: {placement.num_layers} MoE layers{which}, {placement.num_experts} experts on {physical} slots of "
        f"{placement.num_ranks} ranks; reads back as the same placement\n{command}"
    )


def _completed(
    stored: StoredPlacement, path: Path, engine: str, needs: tuple[str, ...], given: Mapping[str, Any]
) -> StoredPlacement:
    """What the file says and what options add; refuses what is missing, contradicts the file, or is not needed."""
    for field, (option, words) in _OPTIONS.items():
        value, said = given[field], getattr(stored, field)
        name = option.split()[0].rstrip(",")
        if value is not None and field not in needs:
            raise InputError(f"{name}: {engine} does not need {words}; leave it out")
        if None not in (value, said) and value != said:
            raise InputError(f"{name} {_shown(value)}: {path} says {_shown(said)}; leave it out")
        if field in needs and value is None and said is None:
            raise InputError(f"{path}: does not say {words}, and {engine} needs it; add {option}")
    try:
        return replace(stored, **{field: value for field, value in given.items() if value is not None})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _shown(value: Any) -> str:
    return shown_layers(value) if isinstance(value, tuple) else str(value)
