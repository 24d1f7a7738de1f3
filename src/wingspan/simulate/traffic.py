"""From routing and placement to what each slot computes and each link carries, as expectations over a step.

All ranks hold equally many tokens and choose experts alike; replicas are chosen as the runtime does: a replica in
the token's own scale-up domain if there is one, else any, evenly.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank, X = R x S slots, G scale-up domains,
C classes of source domains that choose replicas alike (1 where no expert has a replica, else G).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.exchange import Method, Traffic
from wingspan.errors import InputError
from wingspan.placement.placement import EMPTY, Placement
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import Experts

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Routes:
    """Where one token's rows go.

    Args:
        share_LX: part of its expert's rows that a slot gets, over all sources; 0 for an empty slot.
        chosen_LCX: probability that a token of a source class sends a row to a slot.
        rank_hit_LCR: probability that it sends anything to a rank.
        domain_hit_LCG: probability that it sends anything to a scale-up domain.
        ranks, domains: R and G.
    """

    share_LX: Array
    chosen_LCX: Array
    rank_hit_LCR: Array
    domain_hit_LCG: Array
    ranks: int
    domains: int


def routes(placement: Placement, shares_LE: Array, experts: Experts, cluster: Cluster) -> Routes:
    """Follow one token to its slots.

    Args:
        placement: of every MoE layer.
        shares_LE: probability that a token picks each expert; a layer sums to top-k.
        experts: for the number of choices and node-limited routing.
        cluster: exactly the placement's ranks.

    Raises:
        InputError: the ranks do not fill whole scale-up domains.
    """
    layers, ranks = placement.num_layers, placement.num_ranks
    width = min(cluster.scale_up_domain_gpus, ranks)
    if ranks % width:
        raise InputError(
            f"{ranks} ranks do not fill scale-up domains of {width} GPUs; use {ranks - ranks % width} or "
            f"{ranks - ranks % width + width}"
        )
    domains = ranks // width
    slots_LX = placement.slots_LRS.reshape(layers, -1)
    held_LX = slots_LX != EMPTY
    expert_LX = np.where(held_LX, slots_LX, 0)
    picked_LX = np.where(held_LX, np.take_along_axis(shares_LE, expert_LX, axis=1), 0.0)
    part_LCX = _parts(placement, expert_LX, held_LX, domains)
    chosen_LCX = picked_LX[:, None, :] * part_LCX
    missed_LCX = np.log1p(-np.minimum(chosen_LCX, 1 - 1e-12))
    return Routes(
        share_LX=part_LCX.mean(axis=1),
        chosen_LCX=chosen_LCX,
        rank_hit_LCR=_hit(missed_LCX, slots_LX, experts, ranks),
        domain_hit_LCG=_hit(missed_LCX, slots_LX, experts, domains),
        ranks=ranks,
        domains=domains,
    )


def traffic(cluster: Cluster, routes: Routes, tokens: float, row_bytes: float, method: Method) -> Traffic:
    """Expected bytes through every link in one layer's dispatch: arrays (L, R).

    Args:
        cluster: exactly the placement's ranks.
        tokens: of each rank.
        row_bytes: of one row.
    """
    width, domains = routes.ranks // routes.domains, routes.domains
    layers, classes, _ = routes.chosen_LCX.shape
    own = np.arange(domains) if classes > 1 else np.zeros(domains, dtype=np.int64)
    times = domains // classes  # sources per class, in domains

    def over_sources(values: Array) -> Array:
        """Sum over all source domains of (L, C, ...)."""
        return np.asarray(values.sum(axis=1) * times)

    def of_own(values_LCR: Array) -> Array:
        """What each rank's own domain sends it: (L, R) from (L, C, R)."""
        split = values_LCR.reshape(layers, classes, domains, width)
        return split[:, own, np.arange(domains)].reshape(layers, -1)

    per_rank_LCR = routes.chosen_LCX.reshape(layers, classes, routes.ranks, -1).sum(axis=-1)
    if method is Method.LOW_LATENCY:
        to_domain_LCG = per_rank_LCR.reshape(layers, classes, domains, width).sum(axis=-1)
        mine_LR = of_own(per_rank_LCR)
        in_own_LG = to_domain_LCG[:, own, np.arange(domains)]
        all_LG = to_domain_LCG.sum(axis=-1)[:, own]
        up_sent = np.repeat(in_own_LG, width, axis=1) - mine_LR
        up_received = (width - 1) * mine_LR
        out_sent = np.repeat(all_LG - in_own_LG, width, axis=1)
        out_received = width * (over_sources(per_rank_LCR) - mine_LR)
        crossing_LCG = to_domain_LCG
    else:
        hit_LCR, hit_LCG = routes.rank_hit_LCR, routes.domain_hit_LCG
        delivered_LR = over_sources(hit_LCR)
        in_domain_LG = delivered_LR.reshape(layers, domains, width).sum(axis=-1)
        own_hit_LG = hit_LCG[:, own, np.arange(domains)]
        up_sent = np.repeat(in_domain_LG, width, axis=1) - delivered_LR
        up_received = (width - 1) * delivered_LR
        out_sent = np.repeat(hit_LCG.sum(axis=-1)[:, own] - own_hit_LG, width, axis=1)
        out_received = np.repeat(over_sources(hit_LCG) - own_hit_LG, width, axis=1)
        crossing_LCG = hit_LCG
    scale = tokens * row_bytes
    racks = _rack_rows(cluster, crossing_LCG, own, width)
    levels = (up_sent, up_received, out_sent, out_received, *racks)
    return Traffic(*(np.maximum(level, 0.0) * scale for level in levels))


def arrived_rows(routes: Routes, tokens: float, method: Method) -> Array:
    """Rows that reach each rank in one layer before they are copied to its slots: (L, R)."""
    layers, classes, _ = routes.chosen_LCX.shape
    sources = tokens * routes.ranks / classes
    if method is Method.LOW_LATENCY:
        per_rank = routes.chosen_LCX.reshape(layers, classes, routes.ranks, -1).sum(axis=-1)
        return np.asarray(per_rank.sum(axis=1) * sources)
    return np.asarray(routes.rank_hit_LCR.sum(axis=1) * sources)


def _parts(
    placement: Placement, expert_LX: NDArray[np.int64], held_LX: NDArray[np.bool_], domains: int
) -> Array:
    """Of a source domain's rows for the expert in a slot, the part that this slot gets: (L, C, X)."""
    layers, slots = expert_LX.shape
    replicas_LE = placement.replicas_LE
    if replicas_LE.max() == 1:
        return held_LX[:, None, :].astype(np.float64)
    domain_X = np.arange(slots) // (slots // domains)
    held_by_LGE = np.zeros((layers, domains, placement.num_experts))
    layer, slot = np.nonzero(held_LX)
    np.add.at(held_by_LGE, (layer, domain_X[slot], expert_LX[layer, slot]), 1.0)
    in_source_LGX = np.take_along_axis(held_by_LGE, expert_LX[:, None, :], axis=2)
    everywhere_LX = np.take_along_axis(replicas_LE, expert_LX, axis=1)
    is_own_GX = domain_X[None, :] == np.arange(domains)[:, None]
    near = np.where(is_own_GX, 1 / np.maximum(in_source_LGX, 1), 0.0)
    part = np.where(in_source_LGX > 0, near, 1 / everywhere_LX[:, None, :])
    return np.asarray(np.where(held_LX[:, None, :], part, 0.0))


def _hit(missed_LCX: Array, slots_LX: NDArray[np.int64], experts: Experts, places: int) -> Array:
    """Probability that any slot of a place (rank or domain) is chosen: (L, C, places).

    Choices of one token exclude each other, so independent misses would be too rare or too frequent; the exponent
    makes the product exact for uniform routing (and for groups of node-limited routing), and keeps the skew.
    """
    layers, classes, slots = missed_LCX.shape
    each = slots // places
    together = missed_LCX.reshape(layers, classes, places, each).sum(axis=-1)
    here = slots_LX.reshape(layers, places, each)
    held_LP = (here != EMPTY).sum(axis=-1)
    if each == 1:
        return np.asarray(1 - np.exp(together))
    size = experts.count // experts.groups
    groups_LP = np.ones_like(held_LP)
    if experts.groups > 1:
        present = np.zeros((layers, places, experts.groups), dtype=bool)
        layer, place, slot = np.nonzero(here != EMPTY)
        present[layer, place, here[layer, place, slot] // size] = True
        groups_LP = present.sum(axis=-1)
    exponent_LP = np.ones(held_LP.shape)
    for held, groups in {*zip(held_LP.ravel().tolist(), groups_LP.ravel().tolist(), strict=True)}:
        exponent_LP[(held_LP == held) & (groups_LP == groups)] = _exponent(experts, held, groups)
    return np.asarray(1 - np.exp(together * exponent_LP[:, None, :]))


def _exponent(experts: Experts, held: int, groups: int) -> float:
    """By which a uniform product of misses over `held` experts in `groups` groups must be raised to be exact."""
    count, k = experts.count, experts.per_token
    if held == 0 or k == count:
        return 1.0
    missed = _missed(experts, held, groups)
    return log(max(missed, 1e-300)) / (held * log(1 - k / count))


def _missed(experts: Experts, held: int, groups: int) -> float:
    """Probability that none of `held` experts, spread evenly over `groups` groups, is among a token's top-k.

    Node-limited routing (arXiv:2412.19437, section 2.1.2): a token first picks groups, then experts in them.
    """
    usable = experts.count // experts.groups * experts.groups_per_token
    every = comb(experts.groups, experts.groups_per_token)
    total = 0.0
    for open_groups in range(min(groups, experts.groups_per_token) + 1):
        ways = comb(groups, open_groups) * comb(
            experts.groups - groups, experts.groups_per_token - open_groups
        )
        reachable = round(held * open_groups / groups)
        total += (
            ways
            / every
            * comb(max(0, usable - reachable), experts.per_token)
            / comb(usable, experts.per_token)
        )
    return total


def _rack_rows(
    cluster: Cluster, crossing_LCG: Array, own: NDArray[np.int64], width: int
) -> tuple[Array, Array]:
    """Rows per token of a rank that leave and enter each rack: two (L, K), K = 0 without racks."""
    layers, _, domains = crossing_LCG.shape
    nothing = np.zeros((layers, 0))
    if cluster.racks is None:
        return nothing, nothing
    rack_G = np.arange(domains) * width // (cluster.racks.nodes_per_rack * cluster.gpus_per_node)
    if rack_G[-1] == 0:
        return nothing, nothing
    member_GK = (rack_G[:, None] == np.arange(rack_G[-1] + 1)).astype(np.float64)
    rows_LGG = crossing_LCG[:, own] * width * (rack_G[:, None] != rack_G[None, :])
    return rows_LGG.sum(axis=2) @ member_GK, rows_LGG.sum(axis=1) @ member_GK
