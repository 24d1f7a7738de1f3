"""The objective: a placement's expected step time, from a demand (counts, no tokens).

Per layer: compute of the fullest rank + dispatch and combine over the fullest link. Layers add up.

Which replica a token uses is the runtime's rule: one on its own node if there is one, else all in turn. How many
rows reach a node once tokens are counted once there follows from co-activation: of a node's slots, in order, a
slot adds the tokens that picked none of the earlier ones, taken as independent given the slot itself.

Shapes: L layers, R ranks, S slots per rank, E experts, N nodes, P slots per layer (rank by rank), B slots per node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.demand import Demand, Floats
from wingspan.placement.placement import EMPTY
from wingspan.placement.topology import Topology

_SURE = 0.999
"""Most probability of meeting a partner that one pair contributes: keeps its logarithm finite."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What a placement leads to in a step, per layer.

    Attributes:
        rank_tokens_LR: (token, expert) pairs computed by each rank.
        slot_tokens_LRS: the same by slot.
        across_rows_LNN: rows from node to node, one way.
        compute_seconds_L: the fullest rank.
        link_seconds_L: the fullest link, out and back.
    """

    rank_tokens_LR: Floats
    slot_tokens_LRS: Floats
    across_rows_LNN: Floats
    compute_seconds_L: Floats
    link_seconds_L: Floats

    @property
    def seconds_L(self) -> Floats:
        """Predicted time of each layer."""
        return self.compute_seconds_L + self.link_seconds_L


def expect(slots_LRS: NDArray[np.int64], demand: Demand, topology: Topology) -> Expected:
    """See the file's head; `slots_LRS` (layers, ranks, slots) must hold every expert."""
    num_layers, ranks, size = slots_LRS.shape
    flows_LNP = slot_flows(slots_LRS.reshape(num_layers, -1), demand, topology.nodes)
    slot_tokens_LRS = flows_LNP.sum(axis=1).reshape(num_layers, ranks, size)
    flows_LNNB = flows_LNP.reshape(num_layers, topology.nodes, topology.nodes, -1)
    if topology.once_per_node:
        flows_LNNB = flows_LNNB * _first_picks(slots_LRS, demand, topology)[:, None]
    across_LNN = flows_LNNB.sum(axis=3)
    own = np.arange(topology.nodes)
    across_LNN[:, own, own] = 0.0
    return Expected(
        rank_tokens_LR=slot_tokens_LRS.sum(axis=2),
        slot_tokens_LRS=slot_tokens_LRS,
        across_rows_LNN=across_LNN,
        compute_seconds_L=compute_seconds(slot_tokens_LRS, topology),
        link_seconds_L=_link_seconds(flows_LNP, across_LNN, ranks, topology),
    )


def compute_seconds(slot_tokens_LRS: Floats, topology: Topology) -> Floats:
    """Time of the fullest rank in each layer: every busy expert reads its weights or computes, whichever is longer."""
    busy = np.maximum(
        slot_tokens_LRS * topology.seconds_per_token, (slot_tokens_LRS > 0) * topology.seconds_per_expert
    )
    fullest_L: Floats = busy.sum(axis=2).max(axis=1)
    return fullest_L


def slot_flows(slots_LP: NDArray[np.int64], demand: Demand, nodes: int) -> Floats:
    """Tokens of each home node that each slot computes: (layers, nodes, slots)."""
    num_layers, num_slots = slots_LP.shape
    layer = np.arange(num_layers)[:, None]
    node_P = np.arange(num_slots) // (num_slots // nodes)
    held_LP = slots_LP != EMPTY
    expert_LP = np.where(held_LP, slots_LP, 0)
    on_node_LEN = np.zeros((num_layers, demand.num_experts, nodes))
    at = np.nonzero(held_LP)
    np.add.at(on_node_LEN, (at[0], slots_LP[at], node_P[at[1]]), 1.0)
    replicas_LE1 = on_node_LEN.sum(axis=2, keepdims=True)
    near_LEN = np.where(on_node_LEN > 0, demand.source_LEN / np.maximum(on_node_LEN, 1), 0.0)
    far_LEN = np.where(on_node_LEN > 0, 0.0, demand.source_LEN / replicas_LE1)
    # Every slot takes its share of the far tokens, and the near ones of its own node.
    flows_LPN = far_LEN[layer, expert_LP]
    slot = np.arange(num_slots)
    flows_LPN[:, slot, node_P] += near_LEN[layer, expert_LP, node_P]
    flows_LPN *= held_LP[:, :, None]
    return flows_LPN.transpose(0, 2, 1)


def _first_picks(slots_LRS: NDArray[np.int64], demand: Demand, topology: Topology) -> Floats:
    """Share of each slot's tokens that meet no earlier slot of the same node: (layers, nodes, slots per node)."""
    num_layers = len(slots_LRS)
    slots_LNB = slots_LRS.reshape(num_layers, topology.nodes, -1)
    expert_LNB = np.where(slots_LNB == EMPTY, 0, slots_LNB)
    layer = np.arange(num_layers)[:, None, None]
    held = slots_LRS.reshape(num_layers, -1)
    replicas_LE = np.zeros(demand.load_LE.shape)
    at = np.nonzero(held != EMPTY)
    np.add.at(replicas_LE, (at[0], held[at]), 1.0)
    load_LNB = demand.load_LE[layer, expert_LNB]
    together = demand.together_LEE[layer[..., None], expert_LNB[..., :, None], expert_LNB[..., None, :]]
    # Of the tokens of slot b those that also pick the expert of slot c, and there this very replica of it.
    scale = np.maximum(load_LNB, 1e-300)[..., :, None] * replicas_LE[layer, expert_LNB][..., None, :]
    meets = np.minimum(together / scale, _SURE)
    meets[(slots_LNB == EMPTY)[..., None, :] | (slots_LNB == EMPTY)[..., :, None]] = 0.0
    missed = np.log1p(-np.tril(meets, k=-1)).sum(axis=3)
    first: Floats = np.exp(missed)
    return first


def _link_seconds(flows_LNP: Floats, across_LNN: Floats, ranks: int, topology: Topology) -> Floats:
    """Out and back over the fullest of: a network card inwards, one outwards, a rank's fast link inwards."""
    num_layers, nodes, _ = flows_LNP.shape
    rank_NR = flows_LNP.reshape(num_layers, nodes, ranks, -1).sum(axis=3)
    node_R = np.arange(ranks) // topology.ranks_per_node
    inside_LR = rank_NR[:, node_R, np.arange(ranks)]
    outside_LR = rank_NR.sum(axis=1) - inside_LR
    # A rank keeps the tokens that live on it.
    within_LR = inside_LR * (1 - 1 / topology.ranks_per_node)
    if topology.once_per_node:
        # Rows arrive at a rank of the node and are forwarded; one in `ranks_per_node` is there already.
        within_LR = within_LR + outside_LR * (1 - 1 / topology.ranks_per_node)
        into_card_L = across_LNN.sum(axis=1).max(axis=1) / topology.cards
    else:
        per_card = outside_LR.reshape(num_layers, nodes * topology.cards, -1).sum(axis=2)
        into_card_L = per_card.max(axis=1)
    out_of_card_L = across_LNN.sum(axis=2).max(axis=1) / topology.cards
    across_L = np.maximum(into_card_L, out_of_card_L) * topology.across_seconds_per_row
    result: Floats = np.maximum(across_L, within_LR.max(axis=1) * topology.within_seconds_per_row)
    return result
