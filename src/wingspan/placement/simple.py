"""Placements that look at no load: linear, round-robin, random."""

from __future__ import annotations

import numpy as np

from wingspan.errors import InputError
from wingspan.specs.placement import EMPTY, Placement


def linear(num_layers: int, num_experts: int, num_ranks: int, slots_per_rank: int = 1) -> Placement:
    """Experts in order, as evenly as they divide; ranks beyond the experts stay spare.

    Example: 6 experts, 4 ranks, 2 slots give `[[0, 1], [2, 3], [4, -], [5, -]]`.
    """
    check_fits(num_experts, num_ranks, slots_per_rank)
    rank_R, slot_S = np.arange(num_ranks), np.arange(slots_per_rank)
    each, over = divmod(num_experts, num_ranks)
    first_R1 = (rank_R * each + np.minimum(rank_R, over))[:, None]
    held_R1 = (each + (rank_R < over))[:, None]
    slots_RS = np.where(slot_S < held_R1, first_R1 + slot_S, EMPTY)
    return Placement(np.repeat(slots_RS[None], num_layers, axis=0), num_experts)


def round_robin(num_layers: int, num_experts: int, num_ranks: int, slots_per_rank: int = 1) -> Placement:
    """Expert e on rank e mod R."""
    check_fits(num_experts, num_ranks, slots_per_rank)
    slots_RS = np.full((num_ranks, slots_per_rank), EMPTY, dtype=np.int64)
    experts = np.arange(num_experts)
    slots_RS[experts % num_ranks, experts // num_ranks] = experts
    return Placement(np.repeat(slots_RS[None], num_layers, axis=0), num_experts)


def random(
    num_layers: int, num_experts: int, num_ranks: int, slots_per_rank: int = 1, *, seed: int
) -> Placement:
    """`linear` with the experts of each layer in an order of their own, drawn from `seed`."""
    start = linear(num_layers, num_experts, num_ranks, slots_per_rank)
    rng = np.random.default_rng(seed)
    order_LE = rng.permuted(np.tile(np.arange(num_experts), (num_layers, 1)), axis=1)
    layer = np.arange(num_layers)[:, None, None]
    slots_LRS = np.where(start.slots_LRS == EMPTY, EMPTY, order_LE[layer, start.slots_LRS])
    return Placement(slots_LRS, num_experts)


def whole_nodes(ranks: int, ranks_per_node: int) -> int:
    """At least so many ranks: some of one node, or all of several."""
    return ranks if ranks <= ranks_per_node else -(-ranks // ranks_per_node) * ranks_per_node


def check_fits(num_experts: int, num_ranks: int, slots_per_rank: int, ranks_per_node: int = 1) -> None:
    """Raise `InputError`, naming both ways out, unless every expert finds a slot."""
    if num_ranks < 1 or slots_per_rank < 1:
        raise InputError(f"ranks ({num_ranks}) and experts per rank ({slots_per_rank}) must be at least 1")
    if num_ranks * slots_per_rank < num_experts:
        raise InputError(
            f"{num_experts} experts per layer do not fit {num_ranks} ranks x {slots_per_rank} slots; "
            f"use `ranks` {whole_nodes(-(-num_experts // slots_per_rank), ranks_per_node)} or "
            f"`experts_per_rank` {-(-num_experts // num_ranks)}"
        )
