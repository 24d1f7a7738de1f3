"""A placement's traffic, counted token by token on a routing trace: what the dispatchers would send.

Shapes: T tokens, L MoE layers, K experts per token, R ranks, G scale-up domains, M messages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import Placement
from wingspan.traffic.layers import Domains, LayerTraffic
from wingspan.traffic.links import Traffic
from wingspan.traffic.rule import NEAREST_FIRST, ReplicaRule

Ints = NDArray[np.int64]
_Messages = tuple[Ints, Ints]
"""Source and destination rank of each."""
_CHUNK_TOKENS = 16_384
"""Tokens counted at a time: bounds the memory of the tables (tokens, ranks)."""


def count_traffic(
    placement: Placement,
    trace: RoutingTrace,
    cluster: Cluster,
    dispatcher: DispatcherKind,
    rule: ReplicaRule = NEAREST_FIRST,
) -> LayerTraffic:
    """Send every token of `trace` through `placement`: rows of the whole trace, one way.

    Args:
        placement: over exactly the cluster's ranks.
        trace: its tokens live on these ranks.
        cluster: for its domains and racks.
        dispatcher: what is sent once.
        rule: of the replicas.

    Raises:
        InputError: layers, experts or ranks of the three do not agree.
    """
    _check_agreement(placement, trace)
    domains = Domains.of(cluster, placement.num_ranks)
    rack_G = domains.rack_of_domain(cluster)
    turn_T = turns(trace)
    layers = []
    for layer in range(trace.num_layers):
        slot_TK = _slots(placement.slots_LRS[layer], trace, layer, turn_T, domains, rule)
        chunks = range(0, max(1, trace.num_tokens), _CHUNK_TOKENS)
        parts = [
            _count(
                slot_TK[start : start + _CHUNK_TOKENS], trace, start, placement, dispatcher, domains, rack_G
            )
            for start in chunks
        ]
        layers.append([np.sum(same, axis=0, dtype=np.float64) for same in zip(*parts, strict=True)])
    slot_rows_LX, arrived_LR, *links = (np.stack(same) for same in zip(*layers, strict=True))
    return LayerTraffic(slot_rows_LX.reshape(placement.slots_LRS.shape), arrived_LR, Traffic(*links))


def turns(trace: RoutingTrace) -> Ints:
    """Each token's turn among replicas: its place among its home rank's tokens of the step, plus the rank's number."""
    home_T = trace.home_rank_T.astype(np.int64)
    key_T = trace.step_T.astype(np.int64) * trace.num_ranks + home_T
    order = np.argsort(key_T, kind="stable")
    ordered = key_T[order]
    turn_T = np.empty_like(home_T)
    turn_T[order] = np.arange(len(home_T)) - np.searchsorted(ordered, ordered)
    return turn_T + home_T


def _check_agreement(placement: Placement, trace: RoutingTrace) -> None:
    for what, one, two in (
        ("MoE layers", placement.num_layers, trace.num_layers),
        ("experts per layer", placement.num_experts, trace.num_experts),
    ):
        if one != two:
            raise InputError(
                f"the placement has {one} {what}, the trace {two}; they must be of the same model"
            )
    if trace.num_ranks > placement.num_ranks:
        raise InputError(
            f"the trace's tokens live on {trace.num_ranks} ranks, the placement has {placement.num_ranks}; "
            f"use {trace.num_ranks} ranks, or spread the requests anew"
        )


def _slots(
    slots_RS: Ints, trace: RoutingTrace, layer: int, turn_T: Ints, domains: Domains, rule: ReplicaRule
) -> Ints:
    """The slot, counted over all ranks, that computes each (token, expert): (T, K)."""
    ranks = np.arange(len(slots_RS))
    found = rule.candidates(slots_RS, trace.num_experts, domains.of_rank(ranks), ranks)
    return found.choose(
        trace.home_rank_T.astype(np.int64), turn_T, trace.experts_TLK[:, layer].astype(np.int64)
    )


def _count(
    slot_TK: Ints,
    trace: RoutingTrace,
    start: int,
    placement: Placement,
    dispatcher: DispatcherKind,
    domains: Domains,
    rack_G: Ints | None,
) -> tuple[Ints, ...]:
    """Rows per slot, rows that arrive at each rank, and the six amounts of `Traffic`, of one chunk of a layer."""
    home_T = trace.home_rank_T[start : start + len(slot_TK)].astype(np.int64)
    ranks = placement.num_ranks
    rank_TK = slot_TK // placement.slots_per_rank
    if dispatcher is DispatcherKind.FLAT:
        home_M, rank_M = np.repeat(home_T, rank_TK.shape[1]), rank_TK.ravel()
    else:
        token_M, rank_M = np.nonzero(_reached(rank_TK, ranks))
        home_M = home_T[token_M]
    if dispatcher is DispatcherKind.HIERARCHICAL:
        inside, across = _forwarded(home_M, rank_M, _crossing(rank_TK, home_T, domains), domains)
    else:
        inside, across = _straight(home_M, rank_M, domains)
    links = [np.bincount(ends, minlength=ranks) for messages in (inside, across) for ends in messages]
    counted = (
        np.bincount(slot_TK.ravel(), minlength=placement.slots_LRS[0].size),
        np.bincount(rank_M, minlength=ranks),
        *links,
    )
    return (*counted, *_rack_rows(across, rack_G, domains))


def _straight(home_M: Ints, rank_M: Ints, domains: Domains) -> tuple[_Messages, _Messages]:
    """Every row goes straight to its rank: messages inside domains and across; what stays on a rank is none."""
    near_M = domains.of_rank(home_M) == domains.of_rank(rank_M)
    inside_M = near_M & (home_M != rank_M)
    return (home_M[inside_M], rank_M[inside_M]), (home_M[~near_M], rank_M[~near_M])


def _crossing(rank_TK: Ints, home_T: Ints, domains: Domains) -> _Messages:
    """One row per (token, other domain), to the rank of its home's index there: home and landing rank."""
    reached_TG = _reached(domains.of_rank(rank_TK), domains.count)
    reached_TG[np.arange(len(home_T)), domains.of_rank(home_T)] = False
    token_M, domain_M = np.nonzero(reached_TG)
    return home_T[token_M], _landing(home_T[token_M], domain_M, domains)


def _forwarded(
    home_M: Ints, rank_M: Ints, across: _Messages, domains: Domains
) -> tuple[_Messages, _Messages]:
    """Rows for (token, rank), forwarded from where they landed in the rank's domain; on their own from home."""
    landed_M = _landing(home_M, domains.of_rank(rank_M), domains)
    moves_M = landed_M != rank_M
    return (landed_M[moves_M], rank_M[moves_M]), across


def _landing(home_M: Ints, domain_M: Ints, domains: Domains) -> Ints:
    """The rank of a domain that has the home's index there; in its own domain the home itself."""
    landing: Ints = domain_M * domains.width + home_M % domains.width % domains.ranks_G[domain_M]
    return landing


def _rack_rows(across: _Messages, rack_G: Ints | None, domains: Domains) -> tuple[Ints, Ints]:
    """Rows that leave and enter each rack; empty without racks."""
    if rack_G is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    source_M, target_M = (rack_G[domains.of_rank(ranks)] for ranks in across)
    leaves_M = source_M != target_M
    racks = int(rack_G[-1]) + 1
    sent, received = (np.bincount(rack[leaves_M], minlength=racks) for rack in (source_M, target_M))
    return sent, received


def _reached(place_TK: Ints, places: int) -> NDArray[np.bool_]:
    """Which places (domains or ranks) each token's picks lie on: (tokens, places)."""
    result = np.zeros((len(place_TK), places), dtype=np.bool_)
    result[np.arange(len(place_TK))[:, None], place_TK] = True
    return result
