"""From one placement to another: which expert goes from where to where.

Pure and the same on every rank, so that sender and receiver agree without a word.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wingspan.specs.placement import Placement


@dataclass(frozen=True)
class Move:
    """One expert's weights from a rank that holds them to one that will.

    Slots are numbered among those that hold an expert, as `LocalExperts` numbers them.
    """

    expert: int
    source: int
    source_slot: int
    destination: int
    destination_slot: int


def moves(old: Placement, new: Placement, layer: int, ranks_per_node: int) -> list[Move]:
    """What ranks must fetch in one layer, each from a holder on its own node if there is one, else the least busy."""
    before = [old.experts_on(layer, r) for r in range(old.num_ranks)]
    sends: Counter[int] = Counter()
    found = []
    for rank in range(new.num_ranks):
        for slot, expert in enumerate(new.experts_on(layer, rank)):
            if expert in before[rank]:
                continue
            holders = [r for r, held in enumerate(before) if expert in held]
            source = min(holders, key=lambda r: (r // ranks_per_node != rank // ranks_per_node, sends[r], r))
            sends[source] += 1
            found.append(Move(expert, source, before[source].index(expert), rank, slot))
    return found


def kept_slots(old: Placement, new: Placement, layer: int, rank: int) -> list[int | None]:
    """For each expert that `rank` will hold, in slot order, its slot now; None where it must come."""
    before = old.experts_on(layer, rank)
    return [before.index(e) if e in before else None for e in new.experts_on(layer, rank)]


def changed_layers(old: Placement, new: Placement) -> list[int]:
    """Layers whose slots differ."""
    differ_L = (old.slots_LRS != new.slots_LRS).any(axis=(1, 2))
    return [int(layer) for layer in differ_L.nonzero()[0]]


def with_layer(placement: Placement, source: Placement, layer: int) -> Placement:
    """`placement` with one layer as in `source`."""
    slots_LRS = placement.slots_LRS.copy()
    slots_LRS[layer] = source.slots_LRS[layer]
    return Placement(slots_LRS, placement.num_experts)
