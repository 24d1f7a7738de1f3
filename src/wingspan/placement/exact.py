"""A placement's traffic, counted token by token on a routing trace: what the dispatchers would send.

The choice among replicas is the runtime's: own rank, else own node, else all; among several the tokens of a rank
take turns.

Shapes: T tokens, L layers, K experts per token, E experts, R ranks, C replicas of an expert, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.placement.placement import EMPTY, Placement
from wingspan.placement.topology import Topology
from wingspan.routing.trace import RoutingTrace

Ints = NDArray[np.int64]
_CHUNK_TOKENS = 16_384
"""Tokens counted at a time: bounds the memory of the tables (tokens, ranks)."""


@dataclass(frozen=True, eq=False)
class Counted:
    """Rows and tokens of a whole trace, per layer.

    Attributes:
        slot_tokens_LRS: (token, expert) pairs computed in each slot.
        flat_rows_L: rows between nodes, one way, one per (token, expert).
        node_rows_L: rows between nodes, one way, one per (token, node).
        into_card_LC: rows into each network card, out of the two the kind the topology's dispatcher sends.
        out_of_card_LC: rows out of each network card, likewise.
        into_rank_LR: rows that reach each rank over the fast link.
    """

    slot_tokens_LRS: Ints
    flat_rows_L: Ints
    node_rows_L: Ints
    into_card_LC: Ints
    out_of_card_LC: Ints
    into_rank_LR: Ints


def count(placement: Placement, trace: RoutingTrace, topology: Topology) -> Counted:
    """Send every token of `trace` through `placement`; see the file's head.

    Raises:
        InputError: layers, experts or ranks of the three do not agree.
    """
    _check_agreement(placement, trace, topology)
    turn_T = turns(trace)
    layers = []
    for layer in range(trace.num_layers):
        parts = [
            _count_layer(placement.slots_LRS[layer], trace, turn_T, layer, topology, chunk)
            for chunk in _chunks(trace.num_tokens)
        ]
        layers.append([np.sum(same, axis=0) for same in zip(*parts, strict=True)])
    return Counted(*(np.stack(same) for same in zip(*layers, strict=True)))


def turns(trace: RoutingTrace) -> Ints:
    """Each token's turn among replicas: its place among its home rank's tokens of the step, plus the rank's number."""
    home_T = trace.home_rank_T.astype(np.int64)
    key_T = trace.step_T.astype(np.int64) * trace.num_ranks + home_T
    order = np.argsort(key_T, kind="stable")
    ordered = key_T[order]
    turn_T = np.empty_like(home_T)
    turn_T[order] = np.arange(len(home_T)) - np.searchsorted(ordered, ordered)
    return turn_T + home_T


def _chunks(tokens: int) -> list[slice]:
    return [slice(start, start + _CHUNK_TOKENS) for start in range(0, max(1, tokens), _CHUNK_TOKENS)]


def replica_of(
    slots_RS: Ints, experts_TK: Ints, home_T: Ints, turn_T: Ints, topology: Topology, num_experts: int
) -> Ints:
    """The slot, counted over all ranks, that computes each (token, expert): (T, K)."""
    slot_EC, choices_E = _table(slots_RS, num_experts)
    if slot_EC.shape[1] == 1:
        return slot_EC[:, 0][experts_TK]
    slot_TKC = slot_EC[experts_TK]
    rank_TKC = slot_TKC // slots_RS.shape[1]
    valid = np.arange(slot_EC.shape[1]) < choices_E[experts_TK][..., None]
    home = home_T[:, None, None]
    own = valid & (rank_TKC == home)
    near = valid & (topology.node_of(rank_TKC) == topology.node_of(home))
    allowed = np.where(own.any(2, keepdims=True), own, np.where(near.any(2, keepdims=True), near, valid))
    wanted = turn_T[:, None] % allowed.sum(axis=2)
    # The wanted-th of the allowed replicas: the first place where as many have been counted.
    place = (allowed.cumsum(axis=2) > wanted[..., None]).argmax(axis=2)
    chosen: Ints = np.take_along_axis(slot_TKC, place[..., None], axis=2)[..., 0]
    return chosen


def _check_agreement(placement: Placement, trace: RoutingTrace, topology: Topology) -> None:
    for what, one, two in (
        ("MoE layers", placement.num_layers, trace.num_layers),
        ("experts per layer", placement.num_experts, trace.num_experts),
    ):
        if one != two:
            raise InputError(
                f"the placement has {one} {what}, the trace {two}; they must be of the same model"
            )
    if placement.num_ranks != topology.ranks:
        raise InputError(f"the placement has {placement.num_ranks} ranks, the plan {topology.ranks}")
    if trace.num_ranks > topology.ranks:
        raise InputError(
            f"the trace's tokens live on {trace.num_ranks} ranks, the plan has {topology.ranks}; use "
            f"--ranks {trace.num_ranks} or spread the requests anew"
        )


def _count_layer(
    slots_RS: Ints, trace: RoutingTrace, turn_T: Ints, layer: int, topology: Topology, chunk: slice
) -> tuple[Ints, ...]:
    experts_TK = trace.experts_TLK[chunk, layer].astype(np.int64)
    home_T = trace.home_rank_T[chunk].astype(np.int64)
    slot_TK = replica_of(slots_RS, experts_TK, home_T, turn_T[chunk], topology, trace.num_experts)
    rank_TK = slot_TK // slots_RS.shape[1]
    far_TK = topology.node_of(rank_TK) != topology.node_of(home_T)[:, None]
    # Every (token, other node) that a token picks, once.
    reached_TN = _reached(topology.node_of(rank_TK), topology.nodes)
    reached_TN[np.arange(len(home_T)), topology.node_of(home_T)] = False
    if topology.once_per_node:
        token_M, node_M = np.nonzero(reached_TN)
        # A row goes to the card of its home's local index and is forwarded from that rank.
        landing_M = node_M * topology.ranks_per_node + home_T[token_M] % topology.ranks_per_node
    else:
        token_M, pick_M = np.nonzero(far_TK)
        landing_M = rank_TK[token_M, pick_M]
    cards = topology.nodes * topology.cards
    return (
        np.bincount(slot_TK.ravel(), minlength=slots_RS.size).reshape(slots_RS.shape),
        np.asarray(far_TK.sum()),
        np.asarray(reached_TN.sum()),
        np.bincount(topology.card_of(landing_M), minlength=cards),
        np.bincount(topology.card_of(home_T[token_M]), minlength=cards),
        _into_ranks(rank_TK, home_T, topology),
    )


def _into_ranks(rank_TK: Ints, home_T: Ints, topology: Topology) -> Ints:
    """Rows over the fast link into each rank: from ranks of its node, and forwarded ones of other nodes."""
    if not topology.once_per_node:
        home = home_T[:, None]
        near_TK = (topology.node_of(rank_TK) == topology.node_of(home)) & (rank_TK != home)
        return np.bincount(rank_TK[near_TK], minlength=topology.ranks)
    reached_TR = _reached(rank_TK, topology.ranks)
    token_M, rank_M = np.nonzero(reached_TR)
    # A row of another node lands at its home's local index, which on the own node is the home itself.
    forwarded = rank_M % topology.ranks_per_node != home_T[token_M] % topology.ranks_per_node
    return np.bincount(rank_M[forwarded], minlength=topology.ranks)


def _reached(place_TK: Ints, places: int) -> NDArray[np.bool_]:
    """Which places (nodes or ranks) each token's picks lie on: (tokens, places)."""
    result = np.zeros((len(place_TK), places), dtype=np.bool_)
    result[np.arange(len(place_TK))[:, None], place_TK] = True
    return result


def _table(slots_RS: Ints, num_experts: int) -> tuple[Ints, Ints]:
    """Slots of every expert in ascending order (E, C), and how many are valid (E,)."""
    flat = slots_RS.ravel()
    held = np.flatnonzero(flat != EMPTY)
    by_expert = held[np.argsort(flat[held], kind="stable")]
    choices_E = np.bincount(flat[held], minlength=num_experts)
    starts_E = np.cumsum(choices_E) - choices_E
    place = starts_E[:, None] + np.minimum(np.arange(choices_E.max()), choices_E[:, None] - 1)
    return by_expert[place], choices_E
