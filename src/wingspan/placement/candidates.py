"""Placements worth considering: by load alone, gathered on nodes, and the present one changed a little.

All are arrays of slots (layers, ranks, slots) that hold every expert and no expert twice on a rank.

Shapes: L layers, E experts, P items (slots of a layer), G nodes, B places per node, R ranks, S slots per rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from wingspan.placement.balanced import balanced
from wingspan.placement.gather import exchange, grow
from wingspan.placement.objective import Objective
from wingspan.placement.packing import pack
from wingspan.placement.replicate import Items
from wingspan.placement.sticky import name_nodes
from wingspan.specs.placement import EMPTY
from wingspan.traffic.demand import Demand, Floats

Ints = NDArray[np.int64]
_ROUNDS = 80
"""Rounds in which nodes exchange experts: twice of every pair of 40 nodes; more change the result by under 1 %."""


def by_load(demand: Demand, objective: Objective, slots_per_rank: int, worth_LEG: Floats) -> Ints:
    """Ranks evenly full, as `balanced`; nodes named after where they are worth most."""
    slots_LRS = balanced(demand.load_LE, objective.ranks, slots_per_rank).slots_LRS
    return name_nodes(slots_LRS, worth_LEG)


def gathered(
    demand: Demand,
    objective: Objective,
    counts_LE: Ints,
    slots_per_rank: int,
    worth_LEG: Floats,
    spreads: Sequence[float],
) -> dict[float, Ints]:
    """Experts that tokens pick together on one node, heavy ones apart, each where it is worth most; for each spread.

    Args:
        demand: of a step.
        objective: what is judged by.
        counts_LE: slots per expert.
        slots_per_rank: slots per (layer, rank).
        worth_LEG: rows that an expert saves on a node.
        spreads: how strongly load repels load: 1 leaves of co-activation what exceeds chance; more balances nodes.
    """
    num_slots = objective.ranks * slots_per_rank
    items = Items.of(demand.load_LE, counts_LE, num_slots)
    affinity = Affinity.of(items, demand, counts_LE, objective.once_per_node)
    return {
        spread: _gathered(items, affinity.at(spread), demand, objective, slots_per_rank, worth_LEG)
        for spread in spreads
    }


def _gathered(
    items: Items,
    attraction_LPP: NDArray[np.float32],
    demand: Demand,
    objective: Objective,
    slots_per_rank: int,
    worth_LEG: Floats,
) -> Ints:
    """`gathered` at one spread."""
    grown_LGB = grow(attraction_LPP, items.load_LP, objective.nodes)
    layer = np.arange(len(grown_LGB))[:, None, None]
    benefit_LPG = _of_items(items, worth_LEG)
    # Whole nodes first: no single exchange could carry a community to the node of its tokens.
    order_LG = _best_nodes(benefit_LPG[layer, grown_LGB].sum(axis=2))
    start_LGB = np.take_along_axis(grown_LGB, order_LG[..., None], axis=1)
    item_LGB = exchange(
        start_LGB,
        attraction_LPP,
        benefit_LPG.transpose(0, 2, 1).astype(np.float32),
        least_gain=float(1e-6 * demand.load_LE.mean()),
        rounds=_rounds(objective.nodes),
    )
    return _onto_ranks(items, item_LGB, demand, objective, slots_per_rank)


def without_replicas(
    demand: Demand, objective: Objective, slots_per_rank: int, worth_LEG: Floats, spread: float
) -> Ints:
    """`gathered` with one slot per expert, over as few slots of each rank as that takes; the others stay empty."""
    used = -(-demand.num_experts // objective.ranks)
    ones_LE = np.ones(demand.load_LE.shape, dtype=np.int64)
    slots_LRS = gathered(demand, objective, ones_LE, used, worth_LEG, [spread])[spread]
    return np.pad(slots_LRS, ((0, 0), (0, 0), (0, slots_per_rank - used)), constant_values=EMPTY)


@dataclass(frozen=True, eq=False)
class Affinity:
    """How much two items belong on one node, in rows per step saved, at any spread.

    Args:
        load_LP: of the items.
        repulsion_L: of two items the product of their loads, times this and the spread, is what drives them apart.
        company_LPP: what two items save on one node; None where a row is sent for each anyway.
        twins_N: where, in (L, P, P), an item meets a replica of its own expert, or itself.
        twins_lose: replicas of one expert serve more when they are on different nodes.
    """

    load_LP: Floats
    repulsion_L: Floats
    company_LPP: NDArray[np.float32] | None
    twins_N: Ints
    twins_lose: float

    @classmethod
    def of(cls, items: Items, demand: Demand, counts_LE: Ints, by_company: bool) -> Affinity:
        """Read it from a demand for its items; `by_company` where a token crosses to each node once."""
        held_LP = items.expert_LP != EMPTY
        expert_LP = np.where(held_LP, items.expert_LP, 0)
        load_L = np.maximum(demand.load_LE.sum(axis=1), 1e-300)
        company_LPP, partners_L = None, np.ones(len(load_L))
        if by_company:
            together_LEE = demand.company()
            partners_L = together_LEE.sum(axis=(1, 2)) / load_L
            company_LPP = np.stack(
                [
                    each.take(experts, 0).take(experts, 1)
                    for each, experts in zip(together_LEE, expert_LP, strict=True)
                ]
            ).astype(np.float32)
            counts_LP = np.take_along_axis(counts_LE, expert_LP, axis=1)
            share_LP = np.where(held_LP, 1.0 / counts_LP, 0.0).astype(np.float32)
            company_LPP *= share_LP[:, :, None]
            company_LPP *= share_LP[:, None, :]
        twins_LPP = (items.expert_LP[:, :, None] == items.expert_LP[:, None, :]) & held_LP[:, :, None]
        return cls(
            items.load_LP,
            np.maximum(partners_L, 1e-3) / load_L,
            company_LPP,
            np.flatnonzero(twins_LPP),
            4.0 * float(demand.load_LE.max()),
        )

    def at(self, spread: float) -> NDArray[np.float32]:
        """Weigh every pair of items: (L, P, P), symmetric, nothing of an item with itself."""
        repulsion_LP = (self.load_LP * np.sqrt(spread * self.repulsion_L)[:, None]).astype(np.float32)
        result: NDArray[np.float32] = -repulsion_LP[:, :, None] * repulsion_LP[:, None, :]
        if self.company_LPP is not None:
            result += self.company_LPP
        result.reshape(-1)[self.twins_N] = np.float32(-self.twins_lose)
        diagonal = np.arange(result.shape[1])
        result[:, diagonal, diagonal] = 0.0
        return result


def changed_replicas(slots_LRS: Ints, load_LE: Floats, worth_LEG: Floats, changes: int) -> Ints:
    """The present slots with at most so many replicas per layer taken from cold experts for the hottest ones.

    Each change takes the replica that is missed least (least load per remaining slot) and gives it to the expert
    with the most load per slot, while that lowers the load of the hottest slot. Empty slots are taken first.
    """
    result = slots_LRS.copy()
    nodes = worth_LEG.shape[2]
    for layer in range(len(result)):
        _change_layer(result[layer], load_LE[layer], worth_LEG[layer], nodes, changes)
    return result


def _change_layer(slots_RS: Ints, load_E: Floats, worth_EG: Floats, nodes: int, changes: int) -> None:
    """`changed_replicas` of one layer, in place."""
    ranks = len(slots_RS)
    node_R = np.arange(ranks) * nodes // ranks
    counts_E = np.bincount(slots_RS[slots_RS != EMPTY], minlength=len(load_E))
    for _ in range(changes):
        hot = int(np.argmax(load_E / counts_E))
        holds_R = (slots_RS == hot).any(axis=1)
        left_E = np.where(counts_E > 1, load_E / np.maximum(counts_E - 1, 1), np.inf)
        # What each slot's replica would leave to its fellows; an empty slot leaves nothing to anyone.
        loss_RS = np.where(slots_RS == EMPTY, -1.0, left_E[slots_RS])
        loss_RS[holds_R] = np.inf
        least = loss_RS.min()
        if not least < load_E[hot] / counts_E[hot]:
            return
        crowded_R = np.bincount(node_R[holds_R], minlength=nodes)[node_R] > 0
        value_RS = np.where(
            loss_RS == least, worth_EG[hot, node_R][:, None] - crowded_R[:, None] * load_E[hot], -np.inf
        )
        rank, slot = np.unravel_index(int(value_RS.argmax()), value_RS.shape)
        cold = slots_RS[rank, slot]
        if cold != EMPTY:
            counts_E[cold] -= 1
        slots_RS[rank, slot] = hot
        counts_E[hot] += 1


def exchanged(
    slots_LRS: Ints, demand: Demand, objective: Objective, worth_LEG: Floats, least_gain: float, spread: float
) -> Ints:
    """The present slots after exchanges between nodes that gain more than `least_gain` rows each."""
    num_layers = len(slots_LRS)
    expert_LP = slots_LRS.reshape(num_layers, -1)
    counts_LE = np.stack([np.bincount(row[row != EMPTY], minlength=demand.num_experts) for row in expert_LP])
    layer = np.arange(num_layers)[:, None]
    share = demand.load_LE[layer, expert_LP] / np.maximum(counts_LE[layer, expert_LP], 1)
    items = Items(expert_LP, np.where(expert_LP != EMPTY, share, 0.0))
    places_LGB = np.tile(np.arange(expert_LP.shape[1]), (num_layers, 1)).reshape(
        num_layers, objective.nodes, -1
    )
    item_LGB = exchange(
        places_LGB,
        Affinity.of(items, demand, counts_LE, objective.once_per_node).at(spread),
        _of_items(items, worth_LEG).transpose(0, 2, 1).astype(np.float32),
        least_gain,
        _rounds(objective.nodes),
    )
    return expert_LP[layer, item_LGB.reshape(num_layers, -1)].reshape(slots_LRS.shape)


def _rounds(nodes: int) -> int:
    return max(_ROUNDS, 2 * nodes)


def _of_items(items: Items, worth_LEG: Floats) -> Floats:
    """Worth of every item on every node: (layers, items, nodes); nothing for an empty one."""
    held_LP = items.expert_LP != EMPTY
    layer = np.arange(len(held_LP))[:, None]
    worth: Floats = worth_LEG[layer, np.where(held_LP, items.expert_LP, 0)] * held_LP[..., None]
    return worth


def _best_nodes(worth_LGG: Floats) -> Ints:
    """Find for each node the contents (first index) that suit it best: (L, G)."""
    return np.stack([linear_sum_assignment(worth.T, maximize=True)[1] for worth in worth_LGG])


def _onto_ranks(
    items: Items, item_LGB: Ints, demand: Demand, objective: Objective, slots_per_rank: int
) -> Ints:
    """Pack each node's items onto its ranks, by what each will really compute: near tokens prefer a near replica."""
    num_layers, _, size = item_LGB.shape
    expert_LP = np.take_along_axis(items.expert_LP, item_LGB.reshape(num_layers, -1), axis=1)
    expert_XB = expert_LP.reshape(-1, size)
    slots_LRS = expert_LP.reshape(num_layers, objective.ranks, slots_per_rank)
    load_XB = objective.slot_rows(slots_LRS, demand).reshape(-1, size)
    # Heaviest first, replicas side by side (they share evenly), empty ones last.
    order_XB = np.lexsort((expert_XB, -load_XB, expert_XB == EMPTY), axis=1)
    ordered_XB = np.take_along_axis(expert_XB, order_XB, axis=1)
    inside = Items(ordered_XB, np.take_along_axis(load_XB, order_XB, axis=1))
    place_XMS = pack(inside, objective.ranks_per_node)
    expert_XMS = inside.expert_LP[np.arange(len(expert_XB))[:, None, None], place_XMS]
    return expert_XMS.reshape(num_layers, objective.ranks, slots_per_rank)
