"""Put items of known load into equally large bins, so that the fullest bin is as empty as possible.

A bin is a rank (or a node): it takes the same number of items as every other, and never two replicas of one
expert. First `deal` the items out in rounds, the heaviest to the lightest bin; then `relieve` the fullest bins by
exchanges of two items. All layers at once, as whole arrays.

Shapes: L layers, P items, B bins, S slots per bin (P = B x S), H full bins that seek relief, W others that each asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.replicate import Items
from wingspan.specs.placement import EMPTY

_SETTLED = 2e-4
"""A layer whose fullest bin is within this share of the mean is left alone: no figure shows the rest."""
_ROUNDS = ((2, 4), (8, 8), (1_000_000, 20))
"""Rounds of exchanges: first of every second bin, then of every eighth, then of the fullest alone."""


def pack(items: Items, bins: int) -> NDArray[np.int64]:
    """Index of the item in each place: (layers, bins, places per bin).

    Args:
        items: heaviest first, replicas side by side, at most `bins` of one expert; a multiple of `bins`.
        bins: number of bins.
    """
    return relieve(items, deal(items, bins))


def deal(items: Items, bins: int) -> NDArray[np.int64]:
    """The start: in each round every bin takes one item, the lightest bin the heaviest."""
    num_layers, num_items = items.load_LP.shape
    layer = np.arange(num_layers)[:, None]
    places = num_items // bins
    item_LBS = np.empty((num_layers, bins, places), dtype=np.int64)
    full_LB = np.zeros((num_layers, bins))
    for start in range(0, num_items, bins):
        turn_LB = _order_of_bins(items, item_LBS, full_LB, start)
        item_LBS[layer, turn_LB, start // bins] = np.arange(start, start + bins)
        full_LB[layer, turn_LB] += items.load_LP[:, start : start + bins]
    return item_LBS


def _order_of_bins(
    items: Items, item_LBS: NDArray[np.int64], full_LB: NDArray[np.float64], start: int
) -> NDArray[np.int64]:
    """Lightest bin first, except that replicas cut off by the end of the last round find a bin without them."""
    order_LB = np.argsort(full_LB, axis=1, kind="stable")
    if start == 0:
        return order_LB
    bins = full_LB.shape[1]
    layer = np.arange(len(full_LB))[:, None]
    # Only the expert of the last item of the previous round can run on into this round.
    expert_L1 = items.expert_LP[:, start - 1 : start]
    last_LB = np.take_along_axis(items.expert_LP, item_LBS[:, :, start // bins - 1], axis=1)
    holds_LB = (last_LB == expert_L1) & (expert_L1 != EMPTY)
    running_on_L1 = (items.expert_LP[:, start : start + bins] == expert_L1).sum(axis=1, keepdims=True)
    free_first_LB = np.take_along_axis(order_LB, np.argsort(holds_LB[layer, order_LB], 1, kind="stable"), 1)
    served_LB = np.arange(bins) < running_on_L1
    rank_LB = np.empty_like(order_LB)
    rank_LB[layer, order_LB] = np.arange(bins)
    # Those that must take a running-on replica come first in their order, all others by load.
    key_LB = np.where(served_LB, np.arange(bins) - bins, rank_LB[layer, free_first_LB])
    return np.take_along_axis(free_first_LB, np.argsort(key_LB, axis=1, kind="stable"), axis=1)


@dataclass(frozen=True)
class _Bins:
    """What lies where, three views of the same places: (layers, bins, places)."""

    item: NDArray[np.int64]
    load: NDArray[np.float64]
    expert: NDArray[np.int64]

    def swap(self, layer: NDArray[np.int64], a: _Place, b: _Place) -> None:
        for array in (self.item, self.load, self.expert):
            array[layer, *a], array[layer, *b] = array[layer, *b], array[layer, *a]


_Place = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Bin and place in it, per layer."""


def relieve(items: Items, item_LBS: NDArray[np.int64]) -> NDArray[np.int64]:
    """Let full bins exchange items with emptier ones until nothing is left to gain, within `_ROUNDS`."""
    num_layers, bins, _ = item_LBS.shape
    layer = np.arange(num_layers)[:, None, None]
    held = _Bins(item_LBS.copy(), items.load_LP[layer, item_LBS], items.expert_LP[layer, item_LBS])
    if bins < 2:
        return held.item
    for share, rounds in _ROUNDS:
        seekers = max(1, bins // share)
        active = np.arange(num_layers)
        for turn in range(rounds):
            full_LB = held.load[active].sum(axis=2)
            busy = full_LB.max(axis=1) > (1 + _SETTLED) * full_LB.mean(axis=1)
            active, full_LB = active[busy], full_LB[busy]
            if not len(active):
                break
            changed = _exchange(held, active, full_LB, seekers, turn)
            if not changed.any():
                break
            if seekers == 1:  # which has asked all others, so a layer without exchange is done
                active = active[changed]
    return held.item


def _exchange(
    held: _Bins, active: NDArray[np.int64], full_LB: NDArray[np.float64], seekers: int, turn: int
) -> NDArray[np.bool_]:
    """Each of the fullest bins swaps one item with one of its share of the others; which layers changed."""
    full, others = _shares(full_LB, seekers, turn)
    row = active[:, None]
    load_LHS, load_LHWS = held.load[row, full], held.load[row[..., None], others]
    twin_LHWS, twin_others = _twins(held.expert[row, full][:, :, None], held.expert[row[..., None], others])
    layer = np.arange(len(active))[:, None]
    most_LH, other_LHW = full_LB[layer, full], full_LB[layer[..., None], others]
    half_LHW = (most_LH[..., None] - other_LHW) / 2
    give_LHWS = np.where(twin_LHWS, np.inf, load_LHS[:, :, None])
    take_LHWS = np.where(twin_others, -np.inf, load_LHWS) + half_LHW[..., None]
    # The fuller of two bins ends above the middle of both by how far the exchange misses half their difference.
    after = give_LHWS[..., :, None] - take_LHWS[..., None, :]
    np.abs(after, out=after)
    after += (other_LHW + half_LHW)[..., None, None]
    after = after.reshape(*most_LH.shape, -1)
    best_LH = after.argmin(axis=2)
    least_LH = np.take_along_axis(after, best_LH[..., None], axis=2)[..., 0]
    at_layer, at_full = np.nonzero(least_LH < most_LH * (1 - 1e-9))
    size = load_LHS.shape[2]
    other, give, take = np.unravel_index(best_LH[at_layer, at_full], (others.shape[2], size, size))
    held.swap(
        active[at_layer],
        (full[at_layer, at_full], give),
        (others[at_layer, at_full, other], take),
    )
    changed = np.zeros(len(active), dtype=np.bool_)
    changed[at_layer] = True
    return changed


def _shares(
    full_LB: NDArray[np.float64], seekers: int, turn: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fullest bins (L, H), and for each an equal share of the others, light and heavy ones mixed (L, H, W)."""
    order = np.argsort(-full_LB, axis=1, kind="stable")
    lightest_first = order[:, seekers:][:, ::-1]
    share = lightest_first.shape[1] // seekers
    others = lightest_first[:, : share * seekers].reshape(len(order), share, seekers)
    return order[:, :seekers], np.roll(others, -turn, axis=2).swapaxes(1, 2)


def _twins(
    expert_a: NDArray[np.int64], expert_b: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which items of bin a have their expert in bin b as well, and the other way round."""
    same = (expert_a[..., :, None] == expert_b[..., None, :]) & (expert_a != EMPTY)[..., :, None]
    return same.any(axis=-1), same.any(axis=-2)
