"""Placements as serving engines number them: physical expert p of rank r is slot p - r S, experts lie rank by rank.

SGLang, vLLM and TensorRT-LLM all give each rank the same number S of consecutive physical experts, in every layer,
and know no empty slot.

Shapes: L MoE layers, R ranks, S slots per rank, P = R x S physical experts, E logical experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.placement.eplb import without_twins
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement


class NotSaidError(InputError):
    """An engine's file leaves something open that nobody gave: a field of `ImportOptions`."""

    def __init__(self, text: str, field: str) -> None:
        super().__init__(f"{text}; add `{field}`")


@dataclass(frozen=True)
class ImportOptions:
    """What an engine's file does not say itself.

    Args:
        ranks: EP size; the files hold only the order of physical experts.
        experts: logical experts per layer; None takes the highest id + 1.
        moe_layers: numbers of the MoE layers in the model; None takes what the file shows.
        hidden_layers: hidden layers in all; None takes what the file shows.
        ranks_per_node: ranks that share the fast link; no file says it.
        model_class: whose map, where a file holds maps of several models (a target and its draft).
    """

    ranks: int | None = None
    experts: int | None = None
    moe_layers: tuple[int, ...] | None = None
    hidden_layers: int | None = None
    ranks_per_node: int | None = None
    model_class: str | None = None


def physical_to_logical(placement: Placement) -> NDArray[np.int64]:
    """The logical expert of each physical one: (L, P); raises `InputError` where a slot is empty."""
    empty = np.argwhere(placement.slots_LRS == EMPTY)
    if len(empty):
        layer, rank, slot = (int(i) for i in empty[0])
        raise InputError(
            f"placement: slot {slot} of rank {rank} in MoE layer {layer} is empty ({len(empty)} in all) and engines "
            "know no empty slot; fill them with replicas first"
        )
    return placement.slots_LRS.reshape(placement.num_layers, -1)


def from_physical(
    map_LP: Any,
    source: str,
    options: ImportOptions,
    moe_layers: tuple[int, ...] | None = None,
    hidden_layers: int | None = None,
    *,
    ranks: int | None = None,
    experts: int | None = None,
) -> StoredPlacement:
    """The placement of a physical-to-logical map.

    A replica on a rank that holds its expert already serves nobody: its slot is read as empty, with a remark.

    Args:
        map_LP: one list of logical experts per MoE layer.
        source: of the map, for errors.
        options: what the map does not say.
        moe_layers: numbers of its layers in the model, where the file says them.
        hidden_layers: of the model, where the file says it.
        ranks: EP size, where the file says it.
        experts: logical experts per layer, where the file says them.

    Raises:
        InputError: it is no such map; the line names `source`.
        NotSaidError: nobody says over how many ranks it is.
    """
    try:
        physical = np.asarray(map_LP)
    except ValueError:
        raise InputError(f"{source}: its layers have different numbers of physical experts") from None
    if physical.ndim != 2 or not physical.size or not np.issubdtype(physical.dtype, np.integer):
        raise InputError(f"{source}: expected one list of expert numbers per layer")
    ranks = options.ranks if ranks is None else ranks
    if ranks is None:
        raise NotSaidError(f"{source}: the file does not say over how many ranks", "ranks")
    layers, slots = physical.shape
    if ranks < 1 or slots % ranks:
        raise InputError(
            f"{source}: {slots} physical experts do not divide over {ranks} ranks; experts and redundant "
            "ones together must"
        )
    experts = experts or options.experts or int(physical.max()) + 1
    if physical.min() < 0:
        raise InputError(f"{source}: expert number {int(physical.min())}; use 0 or more")
    slots_LRS = physical.reshape(layers, ranks, -1)
    try:
        placement = without_twins(slots_LRS, experts)
        return StoredPlacement(
            placement,
            moe_layers if moe_layers is not None else options.moe_layers,
            hidden_layers if hidden_layers is not None else options.hidden_layers,
            options.ranks_per_node,
            _twins_said(slots_LRS, placement),
        )
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _twins_said(slots_LRS: NDArray[np.int64], placement: Placement) -> tuple[str, ...]:
    emptied = np.argwhere(placement.slots_LRS != slots_LRS)
    if not len(emptied):
        return ()
    layer, rank, slot = (int(n) for n in emptied[0])
    number, one = (
        ("1 replica lies", "") if len(emptied) == 1 else (f"{len(emptied)} replicas lie", ", for one")
    )
    expert = int(slots_LRS[layer, rank, slot])
    return (
        f"{number} on a rank that holds the expert already (expert {expert} on rank {rank} of MoE layer {layer}{one}): "
        "read as one slot and an empty one",
    )


def fill_empty(placement: Placement) -> Placement:
    """Put a replica in every empty slot: of the experts that the rank lacks, the one with fewest replicas so far.

    Raises:
        InputError: a rank has more slots than there are experts.
    """
    if placement.slots_per_rank > placement.num_experts:
        raise InputError(
            f"placement: {placement.slots_per_rank} slots per rank cannot hold different ones of "
            f"{placement.num_experts} experts; use fewer slots"
        )
    slots_LRS = placement.slots_LRS.copy()
    replicas_LE = placement.replicas_LE.astype(np.float64)
    for layer, rank, slot in np.argwhere(slots_LRS == EMPTY).tolist():
        held = slots_LRS[layer, rank][slots_LRS[layer, rank] != EMPTY]
        wanted_E = replicas_LE[layer].copy()
        wanted_E[held] = np.inf
        expert = int(wanted_E.argmin())
        slots_LRS[layer, rank, slot] = expert
        replicas_LE[layer, expert] += 1
    return Placement(slots_LRS, placement.num_experts)
