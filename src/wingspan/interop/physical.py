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
from wingspan.specs.placement import EMPTY, Placement


class NotSaidError(InputError):
    """An engine's file leaves something open that nobody gave: `field` of `ImportOptions`."""

    def __init__(self, text: str, field: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True)
class ImportOptions:
    """What an engine's file does not say itself.

    Args:
        num_ranks: EP size; the files hold only the order of physical experts.
        num_experts: logical experts per layer; None takes the highest id + 1.
        moe_layers: numbers of the MoE layers in the model; None takes what the file shows.
        hidden_layers: hidden layers in all; None takes what the file shows.
        ranks_per_node: ranks that share the fast link; no file says it.
    """

    num_ranks: int | None = None
    num_experts: int | None = None
    moe_layers: tuple[int, ...] | None = None
    hidden_layers: int | None = None
    ranks_per_node: int | None = None


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


def from_physical(map_LP: Any, source: str, options: ImportOptions) -> Placement:
    """The placement of a physical-to-logical map; raises `InputError`, naming `source`, where it is none."""
    try:
        physical = np.asarray(map_LP)
    except ValueError:
        raise InputError(f"{source}: its layers have different numbers of physical experts") from None
    if physical.ndim != 2 or not physical.size or not np.issubdtype(physical.dtype, np.integer):
        raise InputError(f"{source}: expected one list of expert numbers per layer")
    if options.num_ranks is None:
        raise NotSaidError(f"{source}: the file does not say over how many ranks", "num_ranks")
    layers, slots = physical.shape
    if options.num_ranks < 1 or slots % options.num_ranks:
        raise InputError(f"{source}: {slots} physical experts do not divide over {options.num_ranks} ranks")
    experts = options.num_experts or int(physical.max()) + 1
    if physical.min() < 0:
        raise InputError(f"{source}: expert number {int(physical.min())}; use 0 or more")
    try:
        return Placement(physical.reshape(layers, options.num_ranks, -1), experts)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


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
