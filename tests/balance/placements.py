from __future__ import annotations

import numpy as np

from wingspan.specs.placement import EMPTY, Placement


def random_placement(
    rng: np.random.Generator, layers: int, experts: int, ranks: int, slots: int
) -> Placement:
    """Every expert once, the other slots empty or replicas, no expert twice on a rank."""
    slots_LRS = np.full((layers, ranks, slots), EMPTY)
    for held_RS in slots_LRS:
        places = rng.permutation(ranks * slots)
        held_RS.reshape(-1)[places[:experts]] = rng.permutation(experts)
        for place in places[experts:]:
            rank, slot = divmod(int(place), slots)
            expert = int(rng.integers(experts))
            if rng.random() < 0.7 and expert not in held_RS[rank]:
                held_RS[rank, slot] = expert
    return Placement(slots_LRS, experts)
