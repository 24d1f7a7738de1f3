"""Put items of known load into equally large bins, so that the fullest bin is as empty as possible.

A bin is a rank (or a node): it takes the same number of items as every other, and never two replicas of one
expert. First `deal` the items out in rounds, the heaviest to the lightest bin; then `relieve` the fullest bins by
exchanges of two items. All layers at once, as whole arrays.

Shapes: L layers, P items (of `after`: pairs of places), B bins, S slots per bin (P = B x S), H full bins that seek
relief, W others that each asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.replicate import Items
from wingspan.specs.placement import EMPTY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SETTLED = 2e-4
"""A layer whose fullest bin is within this share of the mean is left alone: no figure shows the rest."""
_ROUNDS = ((2, 4), (8, 8), (1_000_000, 20))
"""Rounds of exchanges: first of every second bin, then of every eighth, then of the fullest alone."""
_CACHED_VALUES = 250_000
"""Items that are looked at together."""


def pack(items: Items, bins: int) -> Ints:
    """Index of the item in each place: (layers, bins, places per bin).

    Args:
        items: heaviest first, replicas side by side, at most `bins` of one expert; a multiple of `bins`.
        bins: number of bins.
    """
    return relieve(items, deal(items, bins))


def deal(items: Items, bins: int) -> Ints:
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


def _order_of_bins(items: Items, item_LBS: Ints, full_LB: Floats, start: int) -> Ints:
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


@dataclass(frozen=True, eq=False)
class _Content:
    """What some bins hold, each place of theirs (S, ...), and how full they are (...)."""

    load_S: Floats
    expert_S: NDArray[np.int32]
    full: Floats

    def __getitem__(self, where: Any) -> _Content:
        """Some of the bins, as an index of `full` says it."""
        where = where if isinstance(where, tuple) else (where,)
        return _Content(self.load_S[:, *where], self.expert_S[:, *where], self.full[where])

    def at(self, where: Ints) -> _Content:
        """The same by numbers, where bins are in one row; quicker."""
        return _Content(self.load_S.take(where, 1), self.expert_S.take(where, 1), self.full.take(where))


class _Bins:
    """What lies where, places first; the bins of all layers are counted on, layer by layer."""

    def __init__(self, items: Items, item_LBS: Ints) -> None:
        layers, self.each, _ = item_LBS.shape
        item_SLB = np.moveaxis(item_LBS, 2, 0)
        layer = np.arange(layers)[:, None]
        load_SLB = items.load_LP[layer, item_SLB]
        expert_SLB = items.expert_LP[layer, item_SLB].astype(np.int32)
        flat = (len(item_SLB), layers * self.each)
        self.item_SB = item_SLB.reshape(flat)
        load_SB = load_SLB.reshape(flat)
        self.held = _Content(load_SB, expert_SLB.reshape(flat), _filled(load_SB))

    def of_layers(self, layers: Ints) -> Ints:
        """The bins of some layers: (L, B)."""
        return np.asarray(layers[:, None] * self.each + np.arange(self.each))

    def all_of_layers(self, layers: Ints) -> _Content:
        """What all of these hold: (L, B, 1)."""
        held, of_layer = self.held, (-1, self.each, 1)
        load_S = held.load_S.reshape(len(held.load_S), *of_layer)
        expert_S = held.expert_S.reshape(len(held.expert_S), *of_layer)
        return _Content(load_S, expert_S, held.full.reshape(of_layer))[layers]

    def swap(self, a: _Place, b: _Place) -> None:
        """Exchange what lies in places a and b."""
        for array in (self.item_SB, self.held.load_S, self.held.expert_S):
            array[a], array[b] = array[b], array[a]
        for _, bins in (a, b):
            self.held.full[bins] = _filled(self.held.load_S[:, bins])

    def items(self) -> Ints:
        """The item in each place: (L, B, S)."""
        item_SLB = self.item_SB.reshape(len(self.item_SB), -1, self.each)
        return np.ascontiguousarray(np.moveaxis(item_SLB, 0, 2))


_Place = tuple[Ints, Ints]
"""Places, and the bins that they are in."""


def _filled(load_SB: Floats) -> Floats:
    """How full bins are: added in the order in which a bin's places lie beside one another."""
    return np.asarray(np.ascontiguousarray(load_SB.T).sum(axis=1))


def relieve(items: Items, item_LBS: Ints) -> Ints:
    """Let full bins exchange items with emptier ones until nothing is left to gain, within `_ROUNDS`."""
    num_layers, each, _ = item_LBS.shape
    if each < 2:
        return item_LBS
    bins = _Bins(items, item_LBS)
    for share, rounds in _ROUNDS:
        seekers = max(1, each // share)
        active = np.arange(num_layers)
        for turn in range(rounds):
            full_LB = bins.held.full[bins.of_layers(active)]
            busy = full_LB.max(axis=1) > (1 + _SETTLED) * full_LB.mean(axis=1)
            active = active[busy]
            if not len(active):
                break
            changed = np.concatenate(
                [_exchange(bins, layers, seekers, turn) for layers in _blocks(active, bins)]
            )
            if not changed.any():
                break
            if seekers == 1:  # which has asked all others, so a layer without exchange is done
                active = active[changed]
    return bins.items()


def _blocks(active: Ints, bins: _Bins) -> list[Ints]:
    """Layers that are computed together: as many as stay in the processor's cache, one at least."""
    each = max(1, _CACHED_VALUES // (len(bins.item_SB) * bins.each))
    return [active[begin : begin + each] for begin in range(0, len(active), each)]


def _exchange(bins: _Bins, layers: Ints, seekers: int, turn: int) -> NDArray[np.bool_]:
    """Each of the fullest bins swaps one item with one of its share of the others; which layers changed."""
    bin_LB, held = bins.of_layers(layers), bins.held
    full_LB = held.full[bin_LB]
    if seekers == 1:
        seeker_LH = np.take_along_axis(bin_LB, full_LB.argmax(axis=1)[:, None], axis=1)
        every_LB1 = bins.all_of_layers(layers)
        after_LB = _least_after(held.at(seeker_LH), every_LB1)[..., 0]
        after_LB[bin_LB == seeker_LH] = np.inf
        other_LH = np.take_along_axis(bin_LB, _best(after_LB, full_LB), axis=1)
    else:
        seeker_LH, other_LWH = _shares(full_LB, bin_LB, seekers, turn)
        choice_L1H = _least_after(held.at(seeker_LH), held.at(other_LWH)).argmin(axis=1)[:, None]
        other_LH = np.take_along_axis(other_LWH, choice_L1H, axis=1)[:, 0]
    seeker = held.at(seeker_LH)
    after_PLH = _after(seeker, held.at(other_LH))
    best_LH, least_LH = after_PLH.argmin(axis=0), after_PLH.min(axis=0)
    gains_LH = least_LH < seeker.full * (1 - 1e-9)
    give, take = np.divmod(best_LH[gains_LH], len(bins.item_SB))
    bins.swap((give, seeker_LH[gains_LH]), (take, other_LH[gains_LH]))
    return np.asarray(gains_LH.any(axis=1))


def _best(after_LB: Floats, full_LB: Floats) -> Ints:
    """The bin to exchange with, (L, 1): of equally good ones the lightest, of these the last."""
    best_LB = after_LB == after_LB.min(axis=1, keepdims=True)
    lightest_LB = np.where(best_LB, full_LB, np.inf)[:, ::-1]
    return np.asarray(after_LB.shape[1] - 1 - lightest_LB.argmin(axis=1)[:, None])


def _least_after(seekers: _Content, others: _Content) -> Floats:
    """How full the fuller of two bins is at least after they exchange an item, (L, W, H) for (L, H) and (L, W, H)."""
    seeker = seekers[:, None]
    half_LWH = (seeker.full - others.full) / 2
    take_SLWH = others.load_S + half_LWH
    least_LWH, missed_LWH = np.full_like(half_LWH, np.inf), np.empty_like(half_LWH)
    for give, take in product(seeker.load_S, take_SLWH):
        np.subtract(give, take, out=missed_LWH)
        np.abs(missed_LWH, out=missed_LWH)
        np.minimum(least_LWH, missed_LWH, out=least_LWH)
    least_LWH += others.full + half_LWH
    # Few bins share an expert; these may not exchange all that they hold.
    shared_LWH = np.zeros(half_LWH.shape, dtype=np.bool_)
    for one, other in product(seeker.expert_S, others.expert_S):
        shared_LWH |= one == other
    layer, other, place = np.nonzero(shared_LWH)
    sharing = seekers[layer, place], others[layer, other, place]
    least_LWH[shared_LWH] = _after(*sharing).min(axis=0)
    return least_LWH


def _after(seeker: _Content, other: _Content) -> Floats:
    """How full the fuller of two bins ends, (P, ...), for each item given and each taken; infinite with a twin there.

    It ends above the middle of both by how far the exchange misses half their difference.
    """
    half = (seeker.full - other.full) / 2
    kept, refused = _twins(seeker.expert_S, other.expert_S)
    give_S = np.where(kept, np.inf, seeker.load_S)
    take_S = np.where(refused, -np.inf, other.load_S) + half
    missed = np.abs(give_S[:, None] - take_S[None])
    return np.asarray(missed.reshape(len(give_S) ** 2, *half.shape) + (other.full + half))


def _shares(full_LB: Floats, bin_LB: Ints, seekers: int, turn: int) -> tuple[Ints, Ints]:
    """The fullest bins (L, H), and for each an equal share of the others, light and heavy ones mixed (L, W, H)."""
    order = np.take_along_axis(bin_LB, np.argsort(-full_LB, axis=1, kind="stable"), axis=1)
    lightest_first = order[:, seekers:][:, ::-1]
    share = lightest_first.shape[1] // seekers
    others = lightest_first[:, : share * seekers].reshape(len(order), share, seekers)
    return order[:, :seekers], np.roll(others, -turn, axis=2)


def _twins(
    expert_a_S: NDArray[np.int32], expert_b_S: NDArray[np.int32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which items of bin a have their expert in bin b as well, and the other way round."""
    same = (expert_a_S[:, None] == expert_b_S[None]) & (expert_a_S != EMPTY)[:, None]
    return same.any(axis=1), same.any(axis=0)
