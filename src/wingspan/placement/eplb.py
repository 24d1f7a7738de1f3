"""The published EPLB rule, written anew from its public description: the reference that ours is measured against.

DeepSeek, "Expert Parallelism Load Balancer", https://github.com/deepseek-ai/EPLB (README, 2025). The rule:

- balanced packing: equal numbers of items per pack; heaviest item first, each to the lightest pack with room;
- replication: each further slot goes to the expert with the most load per slot;
- global: replicate over all slots, pack slots to ranks;
- hierarchical: pack groups of experts to nodes, replicate inside each node, pack each node's slots to its ranks.

The rule knows no ban on two replicas of one expert on one rank, so its result is a plain array of slots: where
it holds such a pair, `without_twins` empties the second slot to make it a `Placement`.

Shapes: L layers, E experts, R ranks, S slots per rank, G nodes, F groups, P slots per layer.
"""

from __future__ import annotations

from heapq import heappop, heapreplace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.placement.simple import check_fits
from wingspan.routing.load import checked_load
from wingspan.specs.placement import EMPTY, Placement


def eplb_global(load_LE: ArrayLike, num_ranks: int, slots_per_rank: int = 1) -> NDArray[np.int64]:
    """Experts per slot, (layers, ranks, slots), by the global rule."""
    load = checked_load(load_LE)
    check_fits(load.shape[1], num_ranks, slots_per_rank)
    return np.stack([_replicate_and_pack(row, num_ranks, slots_per_rank) for row in load])


def eplb_hierarchical(
    load_LE: ArrayLike, num_ranks: int, slots_per_rank: int, num_nodes: int, num_groups: int
) -> NDArray[np.int64]:
    """Experts per slot, (layers, ranks, slots), by the hierarchical rule.

    Raises:
        InputError: experts do not divide into groups, groups or ranks into nodes, or they do not fit.
    """
    load = checked_load(load_LE)
    num_layers, num_experts = load.shape
    check_fits(num_experts, num_ranks, slots_per_rank)
    if num_experts % num_groups or num_groups % num_nodes or num_ranks % num_nodes:
        raise InputError(
            f"hierarchical EPLB: {num_experts} experts must divide into {num_groups} groups, and groups and "
            f"{num_ranks} ranks into {num_nodes} nodes; use the global rule, or other nodes or groups"
        )
    group_size = num_experts // num_groups
    member_FM = np.arange(num_experts).reshape(num_groups, group_size)
    result = np.empty((num_layers, num_ranks, slots_per_rank), dtype=np.int64)
    for layer in range(num_layers):
        groups_GX = balanced_packing(load[layer, member_FM].sum(axis=1), num_nodes)
        for node, groups in enumerate(groups_GX):
            experts = member_FM[groups].ravel()
            ranks = slice(node * num_ranks // num_nodes, (node + 1) * num_ranks // num_nodes)
            inside = _replicate_and_pack(load[layer, experts], num_ranks // num_nodes, slots_per_rank)
            result[layer, ranks] = experts[inside]
    return result


def eplb(
    load_LE: ArrayLike, num_ranks: int, slots_per_rank: int, num_nodes: int, num_groups: int = 1
) -> NDArray[np.int64]:
    """The published choice between the two: hierarchical where groups divide into nodes, else global."""
    if num_nodes > 1 and num_groups % num_nodes == 0:
        return eplb_hierarchical(load_LE, num_ranks, slots_per_rank, num_nodes, num_groups)
    return eplb_global(load_LE, num_ranks, slots_per_rank)


def balanced_packing(weight_I: NDArray[np.float64], packs: int) -> NDArray[np.int64]:
    """Items of each pack, in the order they came: (packs, items per pack)."""
    per_pack = len(weight_I) // packs
    if per_pack == 1:
        return np.arange(packs)[:, None]
    weights = weight_I.tolist()
    lightest = [(0.0, pack) for pack in range(packs)]
    held: list[list[int]] = [[] for _ in range(packs)]
    for item in np.argsort(-weight_I, kind="stable").tolist():
        full, pack = lightest[0]
        held[pack].append(item)
        if len(held[pack]) < per_pack:
            heapreplace(lightest, (full + weights[item], pack))
        else:
            heappop(lightest)
    return np.array(held)


def replicate(load_E: NDArray[np.float64], num_slots: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Expert of every slot (the first E slots hold one each, in order) and the slots of every expert."""
    counts = np.ones(len(load_E), dtype=np.int64)
    experts = np.empty(num_slots, dtype=np.int64)
    experts[: len(load_E)] = np.arange(len(load_E))
    for slot in range(len(load_E), num_slots):
        hottest = int(np.argmax(load_E / counts))
        experts[slot] = hottest
        counts[hottest] += 1
    return experts, counts


def _replicate_and_pack(
    load_E: NDArray[np.float64], num_ranks: int, slots_per_rank: int
) -> NDArray[np.int64]:
    experts_P, counts_E = replicate(load_E, num_ranks * slots_per_rank)
    packed: NDArray[np.int64] = experts_P[balanced_packing((load_E / counts_E)[experts_P], num_ranks)]
    return packed


def twins(slots_LRS: NDArray[np.int64]) -> int:
    """Slots that hold an expert that another slot of the same rank holds already: memory that serves nobody."""
    ordered = np.sort(slots_LRS, axis=2)
    return int(((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != EMPTY)).sum())


def without_twins(slots_LRS: NDArray[np.int64], num_experts: int) -> Placement:
    """Turn the rule's slots into a `Placement`: the second of two replicas on one rank becomes `EMPTY`."""
    slots = slots_LRS.copy()
    for slot in range(1, slots.shape[2]):
        again = (slots[:, :, :slot] == slots[:, :, slot, None]).any(axis=2)
        slots[:, :, slot][again] = EMPTY
    return Placement(slots, num_experts)
