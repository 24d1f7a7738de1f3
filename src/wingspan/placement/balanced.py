"""Our load-only strategy: replicas for the hottest experts, ranks as evenly full as can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.placement.eplb import eplb_global, without_twins
from wingspan.placement.packing import pack
from wingspan.placement.replicate import Items, replica_counts
from wingspan.placement.simple import check_fits
from wingspan.routing.load import checked_load
from wingspan.specs.placement import EMPTY, Placement

_FEW_SLOTS = 2048
"""In all layers: so few are tried in two ways within a millisecond or two."""


def balanced(load_LE: ArrayLike, num_ranks: int, slots_per_rank: int = 1) -> Placement:
    """Even out the load of ranks; no rank holds an expert twice, and nearly every slot is used.

    Args:
        load_LE: tokens per (layer, expert).
        num_ranks: EP size, spare ranks included.
        slots_per_rank: slots per (layer, rank).

    Raises:
        InputError: the experts do not fit, or a load is not a number >= 0.
    """
    load = checked_load(load_LE)
    check_fits(load.shape[1], num_ranks, slots_per_rank)
    num_slots = num_ranks * slots_per_rank
    packed = _packed(load, num_ranks, num_slots)
    if packed.slots_LRS.size > _FEW_SLOTS:
        return packed
    # With few items to shift, a replica may be better left out than kept apart from its twin.
    rule = without_twins(eplb_global(load, num_ranks, slots_per_rank), load.shape[1])
    fullest_L, others_L = (rank_load(placement, load).max(axis=1) for placement in (packed, rule))
    better_L11 = (others_L < fullest_L * (1 - 1e-9))[:, None, None]
    return Placement(np.where(better_L11, rule.slots_LRS, packed.slots_LRS), load.shape[1])


def rank_load(placement: Placement, load_LE: ArrayLike) -> NDArray[np.float64]:
    """Tokens per (layer, rank), where replicas share their expert's evenly."""
    load = checked_load(load_LE)
    slots_LX = placement.slots_LRS.reshape(placement.num_layers, -1)
    share_LE = load / placement.replicas_LE
    share_LX = np.take_along_axis(share_LE, np.maximum(slots_LX, 0), axis=1)
    result: NDArray[np.float64] = (
        np.where(slots_LX == EMPTY, 0.0, share_LX).reshape(placement.slots_LRS.shape).sum(axis=2)
    )
    return result


def _packed(load: NDArray[np.float64], num_ranks: int, num_slots: int) -> Placement:
    items = Items.of(load, replica_counts(load, num_slots, num_ranks), num_slots)
    layer = np.arange(len(load))[:, None, None]
    item_LRS = pack(items, num_ranks)
    slots_LRS = items.expert_LP[layer, item_LRS]
    # Which rank is called which changes no balance. In the order of their heaviest experts no node gets all the hot
    # ones, and replicas are neighbours: the tokens of a node that holds only some would not use them evenly.
    heaviest_LR = items.expert_LP[layer[..., 0], item_LRS.min(axis=2)]
    order_LR = np.where(heaviest_LR == EMPTY, load.shape[1], heaviest_LR).argsort(axis=1, kind="stable")
    return Placement(np.take_along_axis(slots_LRS, order_LR[..., None], axis=1), load.shape[1])


def hottest_replica_bound(load_LE: ArrayLike, num_ranks: int, slots_per_rank: int) -> NDArray[np.float64]:
    """The least rank imbalance (max / mean) that the hottest replicas allow, per layer: (layers,).

    It is of placements that fill all slots: one that leaves some empty has fewer, hotter replicas, which may still lie
    more evenly.

    Let w1 >= w2 >= ... be the loads of the slots after the replication that makes w1 least, v1 <= v2 <= ... the same
    from the lightest, S the slots per rank. For every k, either the k hottest slots are on k ranks, and the fullest
    of these carries at least

        (w1 + ... + wk + v1 + ... + v(k(S-1))) / k    and    wk + v(k(S-1)) + v1 + ... + v(S-2),

    or two of them share a rank, which then carries at least w(k-1) + wk + v1 + ... + v(S-2). The bound is the greatest
    over k of the smaller of the two cases, over the mean rank's load, and at least 1.
    """
    load = checked_load(load_LE)
    num_slots = num_ranks * slots_per_rank
    items = Items.of(load, replica_counts(load, num_slots, num_ranks), num_slots)
    hot, light = items.load_LP, items.load_LP[:, ::-1]
    light_sum = np.concatenate([np.zeros((len(hot), 1)), np.cumsum(light, axis=1)], axis=1)
    k = np.arange(1, num_ranks + 1)
    apart = (np.cumsum(hot, axis=1)[:, :num_ranks] + light_sum[:, k * (slots_per_rank - 1)]) / k
    together = np.full_like(apart, np.inf)
    if slots_per_rank > 1:
        rest_L1 = light_sum[:, slots_per_rank - 2, None]
        apart = np.maximum(apart, hot[:, :num_ranks] + light[:, k * (slots_per_rank - 1) - 1] + rest_L1)
        together[:, 1:] = hot[:, : num_ranks - 1] + hot[:, 1:num_ranks] + rest_L1
    bound = np.minimum(apart, together).max(axis=1)
    mean = load.sum(axis=1) / num_ranks
    ratio: NDArray[np.float64] = np.divide(bound, mean, out=np.ones_like(mean), where=mean > 0)
    return np.maximum(ratio, 1.0)
