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
from wingspan.placement.placement import EMPTY, Placement
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import Experts

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Routes:
    """Where one token's rows go.

    The last domain may be narrower than the others; arrays are filled up to whole domains with slots that hold
    nothing and ranks that have no tokens.

    Args:
        share_LX: part of its expert's rows that a slot gets, over all sources; 0 for an empty slot.
        chosen_LCX: probability that a token of a source class sends a row to a slot.
        rank_hit_LCR: probability that it sends anything to a rank.
        domain_hit_LCG: probability that it sends anything to a scale-up domain.
        sources_C: ranks whose tokens choose so.
        ranks_G: ranks of each domain.
    """

    share_LX: Array
    chosen_LCX: Array
    rank_hit_LCR: Array
    domain_hit_LCG: Array
    sources_C: Array
    ranks_G: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Ranks of a full domain."""
        return int(self.ranks_G[0])

    @property
    def per_rank_LCR(self) -> Array:
        """Rows that a token sends to each rank, one per expert."""
        layers, classes, _ = self.chosen_LCX.shape
        places = len(self.ranks_G) * self.width
        return np.asarray(self.chosen_LCX.reshape(layers, classes, places, -1).sum(axis=-1))


def routes(placement: Placement, shares_LE: Array, experts: Experts, cluster: Cluster) -> Routes:
    """Follow one token to its slots.

    Args:
        placement: of every MoE layer.
        shares_LE: probability that a token picks each expert; a layer sums to top-k.
        experts: for the number of choices and node-limited routing.
        cluster: exactly the placement's ranks.
    """
    layers, ranks = placement.num_layers, placement.num_ranks
    width = min(cluster.scale_up_domain_gpus, ranks)
    domains = -(-ranks // width)
    ranks_G = np.minimum(width, ranks - np.arange(domains) * width)
    filled = np.full((layers, domains * width - ranks, placement.slots_per_rank), EMPTY)
    slots_LX = np.concatenate([placement.slots_LRS, filled], axis=1).reshape(layers, -1)
    held_LX = slots_LX != EMPTY
    expert_LX = np.where(held_LX, slots_LX, 0)
    picked_LX = np.where(held_LX, np.take_along_axis(shares_LE, expert_LX, axis=1), 0.0)
    part_LCX = _parts(placement, expert_LX, held_LX, domains)
    sources_C = ranks_G.astype(np.float64) if part_LCX.shape[1] > 1 else np.array([float(ranks)])
    chosen_LCX = picked_LX[:, None, :] * part_LCX
    missed_LCX = np.log1p(-np.minimum(chosen_LCX, 1 - 1e-12))
    share_LX = np.einsum("lcx,c->lx", part_LCX, sources_C / ranks)
    return Routes(
        share_LX=share_LX[:, : ranks * placement.slots_per_rank],
        chosen_LCX=chosen_LCX,
        rank_hit_LCR=_hit(missed_LCX, slots_LX, experts, domains * width),
        domain_hit_LCG=_hit(missed_LCX, slots_LX, experts, domains),
        sources_C=sources_C,
        ranks_G=ranks_G,
    )


def traffic(cluster: Cluster, way: Routes, tokens: float, row_bytes: float, method: Method) -> Traffic:
    """Expected bytes through every link in one layer's dispatch: arrays (L, R).

    Args:
        cluster: exactly the placement's ranks.
        tokens: of each rank.
        row_bytes: of one row.
    """
    width, domains = way.width, len(way.ranks_G)
    layers, classes, _ = way.chosen_LCX.shape
    own = np.arange(domains) if classes > 1 else np.zeros(domains, dtype=np.int64)
    mates_R = np.repeat(way.ranks_G, width)

    def from_all(values: Array) -> Array:
        """Sum over all source ranks of (L, C, ...)."""
        return np.asarray(np.einsum("lc...,c->l...", values, way.sources_C))

    def from_own(values_LCR: Array) -> Array:
        """What a rank of its own domain sends to each rank: (L, R) from (L, C, R)."""
        split = values_LCR.reshape(layers, classes, domains, width)
        return split[:, own, np.arange(domains)].reshape(layers, -1)

    if method is Method.LOW_LATENCY:
        rows_LCR = way.per_rank_LCR
        crossing_LCG = rows_LCR.reshape(layers, classes, domains, width).sum(axis=-1)
        mine_LR = from_own(rows_LCR)
        up_sent = np.repeat(crossing_LCG[:, own, np.arange(domains)], width, axis=1) - mine_LR
        up_received = (mates_R - 1) * mine_LR
        out_received = from_all(rows_LCR) - mates_R * mine_LR
    else:
        crossing_LCG = way.domain_hit_LCG
        # A rank forwards what the ranks of its own index in every domain send to its domain.
        rail_LR = from_all(way.rank_hit_LCR) / width
        in_domain_LG = rail_LR.reshape(layers, domains, width).sum(axis=-1)
        up_sent = np.repeat(in_domain_LG, width, axis=1) - rail_LR
        up_received = (mates_R - 1) * rail_LR
        own_hit_LG = crossing_LCG[:, own, np.arange(domains)]
        entering_LG = from_all(crossing_LCG) / way.ranks_G - own_hit_LG
        out_received = np.repeat(entering_LG, width, axis=1)
    leaving_LG = crossing_LCG.sum(axis=-1)[:, own] - crossing_LCG[:, own, np.arange(domains)]
    out_sent = np.repeat(leaving_LG, width, axis=1)
    scale, ranks = tokens * row_bytes, int(way.ranks_G.sum())
    levels = [level[:, :ranks] for level in (up_sent, up_received, out_sent, out_received)]
    racks = _rack_rows(cluster, crossing_LCG, own, way.ranks_G)
    return Traffic(*(np.maximum(level, 0.0) * scale for level in (*levels, *racks)))


def arrived_rows(way: Routes, tokens: float, method: Method) -> Array:
    """Rows that reach each rank in one layer before they are copied to its slots: (L, R)."""
    per_token_LCR = way.per_rank_LCR if method is Method.LOW_LATENCY else way.rank_hit_LCR
    rows_LR = np.einsum("lcr,c->lr", per_token_LCR, way.sources_C * tokens)
    return np.asarray(rows_LR[:, : int(way.ranks_G.sum())])


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
    cluster: Cluster, crossing_LCG: Array, own: NDArray[np.int64], ranks_G: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Rows per token of a rank that leave and enter each rack: two (L, K), K = 0 without racks."""
    layers, _, domains = crossing_LCG.shape
    nothing = np.zeros((layers, 0))
    if cluster.racks is None:
        return nothing, nothing
    first_rank_G = np.arange(domains) * ranks_G[0]
    rack_G = first_rank_G // (cluster.racks.nodes_per_rack * cluster.gpus_per_node)
    if rack_G[-1] == 0:
        return nothing, nothing
    member_GK = (rack_G[:, None] == np.arange(rack_G[-1] + 1)).astype(np.float64)
    elsewhere_GG = rack_G[:, None] != rack_G[None, :]
    rows_LGG = crossing_LCG[:, own] * ranks_G[:, None] * elsewhere_GG
    return rows_LGG.sum(axis=2) @ member_GK, rows_LGG.sum(axis=1) @ member_GK
