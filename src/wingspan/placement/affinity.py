"""Request routing: which node each request should live on, given which experts its tokens picked so far.

A token's row need not cross to its own node. So a request gains most where most of its (token, layer) pairs find
an expert; every node takes the same number of requests, to one.

Shapes: Q requests, T tokens, K experts per token, L layers, E experts, G nodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from wingspan.placement.objective import Objective
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.placement import Placement

Ints = NDArray[np.int64]
_BLOCK_REQUESTS = 1024
"""Requests assigned at a time: keeps the assignment's cost matrix small, and each block balanced."""


def home_nodes(trace: RoutingTrace, placement: Placement, objective: Objective) -> dict[int, int]:
    """The node for each request of `trace`, from all its tokens there; nodes differ by one request per block."""
    requests, request_T = np.unique(trace.request_T, return_inverse=True)
    saved_QG = rows_saved(trace, placement, objective, request_T, len(requests))
    node_Q = np.empty(len(requests), dtype=np.int64)
    for start in range(0, len(requests), _BLOCK_REQUESTS):
        block = slice(start, start + _BLOCK_REQUESTS)
        node_Q[block] = _assign(saved_QG[block])
    return dict(zip(requests.tolist(), node_Q.tolist(), strict=True))


def rows_saved(
    trace: RoutingTrace, placement: Placement, objective: Objective, request_T: Ints, requests: int
) -> Ints:
    """Rows that need not cross between nodes if the request lived on a node: (requests, nodes)."""
    saved_QG = np.zeros((requests, objective.nodes), dtype=np.int64)
    on_node_LEG = objective.on_node(placement.slots_LRS, placement.num_experts)
    for layer in range(trace.num_layers):
        on_node_EG = on_node_LEG[layer] > 0
        picks_TKG = on_node_EG[trace.experts_TLK[:, layer]]
        rows_TG = picks_TKG.any(axis=1) if objective.once_per_node else picks_TKG.sum(axis=1)
        np.add.at(saved_QG, request_T, rows_TG)
    return saved_QG


def rehome(trace: RoutingTrace, node_of_request: dict[int, int], objective: Objective) -> RoutingTrace:
    """Let the same tokens live on these nodes; a node's requests go to its ranks in turn.

    Requests without a node keep their place.
    """
    turn = dict.fromkeys(range(objective.nodes), 0)
    home = {}
    for request, node in sorted(node_of_request.items()):
        home[request] = node * objective.ranks_per_node + turn[node] % objective.ranks_per_node
        turn[node] += 1
    requests, index_T = np.unique(trace.request_T, return_inverse=True)
    keeps = np.array([request not in home for request in requests.tolist()])
    new_Q = np.array([home.get(request, 0) for request in requests.tolist()], dtype=np.int32)
    home_T = np.where(keeps[index_T], trace.home_rank_T, new_Q[index_T])
    return RoutingTrace(
        trace.experts_TLK,
        home_T.astype(np.int32),
        trace.request_T,
        trace.step_T,
        trace.num_experts,
        objective.ranks,
    )


def _assign(saved_QG: Ints) -> Ints:
    requests, nodes = saved_QG.shape
    places = -(-requests // nodes)
    # One column per place; without the surplus places of a last round no node could get two more than another.
    column_node = np.tile(np.arange(nodes), places)
    surplus = places * nodes - requests
    worth = saved_QG[:, column_node].astype(np.float64)
    if surplus:
        # Padding rows take the surplus, in the last round of places only.
        padding = np.full((surplus, places * nodes), -1e18)
        padding[:, -nodes:] = 0.0
        worth = np.concatenate([worth, padding])
    result: Ints = column_node[linear_sum_assignment(worth, maximize=True)[1][:requests]]
    return result
