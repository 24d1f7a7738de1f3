"""Gather items on nodes: those that belong together on one node, each where its tokens live.

Maximises, per layer,  sum over nodes of (affinity of all pairs on the node + benefit of each item for the node).
All wishes are put into the two arrays: experts picked together attract each other, load and replicas of one
expert repel each other, an expert is drawn to the node of its tokens and to where its weights lie already.

`grow` makes a start; `exchange` improves one: the nodes meet in pairs, as in a tournament, and each pair swaps the
two items that gain most. Pairs of a round share no node, so their gains are independent and exact.

Shapes: L layers, P items, G nodes, B places per node, H pairs of nodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Affinity = NDArray[np.float32]
_WILLING = 4
"""Items of a node that a pair of nodes considers for an exchange; the others gain less or lose."""


def grow(affinity_LPP: Affinity, weight_LP: NDArray[np.float64], nodes: int) -> Ints:
    """Fill node after node: a node begins with the heaviest item left and takes what suits it best.

    Returns:
        Item in each place: (layers, nodes, places per node).
    """
    num_layers, num_items = weight_LP.shape
    layer = np.arange(num_layers)
    taken_LP = np.zeros((num_layers, num_items), dtype=np.bool_)
    order_LP = np.empty((num_layers, num_items), dtype=np.int64)
    size = num_items // nodes
    for place in range(num_items):
        if place % size == 0:
            wish_LP = weight_LP.astype(np.float32)
        best_L = np.where(taken_LP, -np.inf, wish_LP).argmax(axis=1)
        order_LP[:, place] = best_L
        taken_LP[layer, best_L] = True
        joined_LP = affinity_LPP[layer, best_L]
        wish_LP = joined_LP.copy() if place % size == 0 else wish_LP + joined_LP
    return order_LP.reshape(num_layers, nodes, size)


def exchange(
    item_LGB: Ints,
    affinity_LPP: Affinity,
    benefit_LGP: Affinity,
    least_gain: float,
    rounds: int,
) -> Ints:
    """Swap items between nodes while a swap gains more than `least_gain`, for at most so many rounds.

    Args:
        item_LGB: the start, item in each place.
        affinity_LPP: symmetric, zero diagonal.
        benefit_LGP: of each item for each node.
        least_gain: a swap must gain more than this.
        rounds: of the tournament; G - 1 of them let every pair of nodes meet once.
    """
    nodes = item_LGB.shape[1]
    item_LGB = item_LGB.copy()
    if nodes < 2:
        return item_LGB
    joined_LGP = np.ascontiguousarray(benefit_LGP + _joined(item_LGB, affinity_LPP))
    active = np.arange(len(item_LGB))
    schedule = tournament(nodes)
    improved = np.zeros(len(item_LGB), dtype=np.bool_)
    for turn in range(rounds):
        a_H, b_H = schedule[turn % len(schedule)]
        changed = _swap_best(item_LGB, joined_LGP, affinity_LPP, active, a_H, b_H, least_gain)
        improved[active[changed]] = True
        if turn % len(schedule) == len(schedule) - 1:
            # All pairs have met: a layer in which none swapped is done.
            active = active[improved[active]]
            improved[:] = False
            if not len(active):
                break
    return item_LGB


def tournament(nodes: int) -> list[tuple[Ints, Ints]]:
    """Rounds of disjoint pairs in which every two nodes meet exactly once (the circle method)."""
    players = nodes + nodes % 2
    ring = np.arange(1, players)
    rounds = []
    for turn in range(players - 1):
        seats = np.concatenate([[0], np.roll(ring, turn)])
        a, b = seats[: players // 2], seats[players // 2 :][::-1]
        real = (a < nodes) & (b < nodes)
        rounds.append((a[real], b[real]))
    return rounds


def _joined(item_LGB: Ints, affinity_LPP: Affinity) -> Affinity:
    """Affinity of every item to all items of every node: (layers, nodes, items)."""
    num_layers, nodes, _ = item_LGB.shape
    member = np.zeros((num_layers, nodes, affinity_LPP.shape[1]), dtype=np.float32)
    np.put_along_axis(member, item_LGB, 1.0, axis=2)
    result: Affinity = member @ affinity_LPP
    return result


def _swap_best(
    item_LGB: Ints,
    joined_LGP: Affinity,
    affinity_LPP: Affinity,
    active: Ints,
    a_H: Ints,
    b_H: Ints,
    least_gain: float,
) -> NDArray[np.bool_]:
    """Swap in each pair of nodes the two items that gain most, and say which of the active layers changed."""
    # Flat places: numpy takes by one index several times as fast as by three.
    nodes, items = joined_LGP.shape[1:]
    joined_N, affinity_N = joined_LGP.reshape(-1), affinity_LPP.reshape(-1)
    layer = active[:, None]
    a_LH, b_LH = (layer * nodes + node_H for node_H in (a_H, b_H))
    place_a, i_LHC, go_i = _most_willing(item_LGB[layer, a_H], joined_N, a_LH * items, b_LH * items)
    place_b, j_LHC, go_j = _most_willing(item_LGB[layer, b_H], joined_N, b_LH * items, a_LH * items)
    # Both counted the other as the neighbour they come to; they pass each other.
    row_LHC = (layer[..., None] * items + i_LHC) * items
    gain = affinity_N.take(row_LHC[..., :, None] + j_LHC[..., None, :])
    gain *= -2
    gain += go_i[..., :, None]
    gain += go_j[..., None, :]
    gain = gain.reshape(*i_LHC.shape[:2], -1)
    best_LH = gain.argmax(axis=2)
    wins_LH: NDArray[np.bool_] = np.take_along_axis(gain, best_LH[..., None], axis=2)[..., 0] > least_gain
    at, won = np.nonzero(wins_LH)
    layers, a_M, b_M = active[at], a_H[won], b_H[won]
    from_a, from_b = np.divmod(best_LH[at, won], i_LHC.shape[2])
    i_M, j_M = i_LHC[at, won, from_a], j_LHC[at, won, from_b]
    item_LGB[layers, a_M, place_a[at, won, from_a]] = j_M
    item_LGB[layers, b_M, place_b[at, won, from_b]] = i_M
    affinity_XP, joined_XP = affinity_LPP.reshape(-1, items), joined_LGP.reshape(-1, items)
    moved_MP = affinity_XP.take(layers * items + j_M, axis=0)
    moved_MP -= affinity_XP.take(layers * items + i_M, axis=0)
    joined_XP[layers * nodes + a_M] += moved_MP
    joined_XP[layers * nodes + b_M] -= moved_MP
    return np.asarray(wins_LH.any(axis=1))


def _most_willing(
    item_LHB: Ints, joined_N: Affinity, here_LH: Ints, there_LH: Ints
) -> tuple[Ints, Ints, Affinity]:
    """Pick on each node the few items that gain most by going over: their places, themselves, their gains (L, H, C).

    Args:
        item_LHB: of the nodes.
        joined_N: affinity of items to nodes, flat.
        here_LH, there_LH: where in it the row of each node begins, and of that to which its items would go.
    """
    gain_LHB = joined_N.take(there_LH[..., None] + item_LHB) - joined_N.take(here_LH[..., None] + item_LHB)
    pairs, size = here_LH.shape, item_LHB.shape[2]
    if size <= _WILLING:
        return np.broadcast_to(np.arange(size), gain_LHB.shape), item_LHB, gain_LHB
    place_LHC = np.argpartition(gain_LHB, -_WILLING, axis=2)[..., -_WILLING:]
    flat_LHC = np.arange(here_LH.size).reshape(*pairs, 1) * size + place_LHC
    return place_LHC, item_LHB.take(flat_LHC), gain_LHB.take(flat_LHC)
