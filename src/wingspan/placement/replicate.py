"""How many slots each expert gets, and the list of items to place that follows from it.

Shapes: L layers, E logical experts, P items (one item = one slot's content; P = slots per layer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.routing.load import checked_load
from wingspan.specs.placement import EMPTY

_HALVINGS = 20
"""Leave the price within a millionth of the hottest load: a few slots at most."""
_BELOW = 1 - 1e-12
"""Keeps rounding from giving a slot that the rule would not."""


def replica_counts(
    load_LE: ArrayLike, num_slots: int, most_replicas: int, nodes: int = 1
) -> NDArray[np.int64]:
    """Slots per expert, (layers, experts): further slots go to the expert with the most load per slot.

    On one node this greedy rule gives the least possible load of the hottest slot. On several, tokens use a replica of
    their own node where there is one, so replicas beyond one per node relieve the fullest only when every node gets
    one more: then they are given a whole round at a time.

    Args:
        load_LE: tokens per (layer, expert).
        num_slots: slots per layer.
        most_replicas: of one expert: one per rank. Slots beyond that stay empty.
        nodes: nodes that the replicas are spread over and tokens come from.

    Example: loads `[6, 2, 1]`, 5 slots, at most 4 each, give `[3, 1, 1]`; on 2 nodes `[2, 2, 1]`.

    Raises:
        InputError: there are fewer slots than experts.
    """
    load = checked_load(load_LE)
    num_layers, num_experts = load.shape
    if num_slots < num_experts:
        raise InputError(
            f"{num_experts} experts per layer do not fit {num_slots} slots; use more ranks or more "
            "slots per rank"
        )
    counts = _first_counts(load, num_slots, most_replicas, nodes)
    layer = np.arange(num_layers)
    left_L = num_slots - counts.sum(axis=1)
    per_slot = load / counts
    while left_L.any():
        hottest = per_slot.argmax(axis=1)
        held = counts[layer, hottest]
        step = np.where(held < nodes, 1, nodes)
        fits = (left_L >= step) & (held + step <= most_replicas)
        counts[layer, hottest] += np.where(fits, step, 0)
        left_L -= np.where(fits, step, 0)
        per_slot[layer, hottest] = np.where(fits, load[layer, hottest] / (held + step), -1.0)
        left_L[(per_slot < 0).all(axis=1)] = 0
    return counts


def _first_counts(
    load_LE: NDArray[np.float64], num_slots: int, most_replicas: int, nodes: int
) -> NDArray[np.int64]:
    """Slots that the rule gives before few are left: as many as bring every expert's load per slot under a price.

    The price is found by halving, so low that the slots just suffice.
    """
    most = most_replicas if most_replicas <= nodes else most_replicas // nodes * nodes
    low_L1, high_L1 = np.zeros((len(load_LE), 1)), np.maximum(load_LE.max(axis=1, keepdims=True), 1e-300)
    counts = np.ones_like(load_LE, dtype=np.int64)
    for _ in range(_HALVINGS):
        price_L1 = (low_L1 + high_L1) / 2
        wanted = np.ceil(np.minimum(load_LE * (_BELOW / price_L1), most)).astype(np.int64)
        wanted = np.where(wanted <= nodes, np.maximum(wanted, 1), -(-wanted // nodes) * nodes)
        fits_L1 = wanted.sum(axis=1, keepdims=True) <= num_slots
        counts = np.where(fits_L1, wanted, counts)
        low_L1, high_L1 = np.where(fits_L1, low_L1, price_L1), np.where(fits_L1, price_L1, high_L1)
    return counts


@dataclass(frozen=True, eq=False)
class Items:
    """What is to be placed in each layer, heaviest first, replicas of one expert side by side, `EMPTY` last.

    The load of an expert is taken as shared evenly by its replicas.
    """

    expert_LP: NDArray[np.int64]
    load_LP: NDArray[np.float64]

    @classmethod
    def of(cls, load_LE: ArrayLike, counts_LE: NDArray[np.int64], num_slots: int) -> Items:
        """The items of `counts_LE` slots per expert, filled up with `EMPTY` to `num_slots`."""
        load = checked_load(load_LE)
        num_layers, num_experts = load.shape
        per_slot = load / counts_LE
        order = np.argsort(-per_slot, axis=1, kind="stable")
        layer = np.arange(num_layers)[:, None]
        # Row by row: the k-th expert in order fills the items from ends[k-1] to ends[k].
        ends = np.cumsum(counts_LE[layer, order], axis=1)
        offset = num_slots + 1
        flat_ends = (ends + layer * offset).ravel()
        wanted = (np.arange(num_slots)[None, :] + layer * offset).ravel()
        position = np.searchsorted(flat_ends, wanted, side="right").reshape(num_layers, num_slots)
        position = position - layer * num_experts
        filled = np.arange(num_slots)[None, :] < ends[:, -1:]
        expert = order[layer, np.minimum(position, num_experts - 1)]
        return cls(
            expert_LP=np.where(filled, expert, EMPTY),
            load_LP=np.where(filled, per_slot[layer, expert], 0.0),
        )
