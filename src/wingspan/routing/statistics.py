"""What a routing trace says: load, co-activation, where the traffic comes from, how it drifts, nodes per token.

Every count of a whole trace is the sum of the counts of its pieces, so `collect` takes a stream of pieces.

Shapes: T tokens, L MoE layers, K experts per token, E logical experts, R home ranks, W windows of time, G nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.routing.trace import RoutingTrace

Counts = NDArray[np.int64]


def expert_load(trace: RoutingTrace) -> Counts:
    """Tokens per (layer, expert): (L, E). Each layer sums to tokens x top-k."""
    return _per_layer(trace, lambda picks_TK: picks_TK, (trace.num_experts,))


def coactivation(trace: RoutingTrace) -> Counts:
    """Tokens that picked both experts: (L, E, E), symmetric, with the load on the diagonal."""
    first, second = np.triu_indices(trace.top_k, k=1)
    experts = trace.num_experts
    pairs_LEE = _per_layer(
        trace, lambda picks_TK: picks_TK[:, first] * experts + picks_TK[:, second], (experts, experts)
    )
    both_LEE = pairs_LEE + pairs_LEE.transpose(0, 2, 1)
    diagonal = np.arange(experts)
    both_LEE[:, diagonal, diagonal] = expert_load(trace)
    return both_LEE


def source_traffic(trace: RoutingTrace) -> Counts:
    """Tokens per (layer, expert) by the rank they live on: (L, E, R)."""
    home_T1 = trace.home_rank_T.astype(np.int64)[:, None]
    ranks = trace.num_ranks
    return _per_layer(trace, lambda picks_TK: picks_TK * ranks + home_T1, (trace.num_experts, ranks))


def by_node(source_LER: Counts, ranks_per_node: int) -> Counts:
    """Source traffic by node instead of rank: (L, E, G); the last node may hold fewer ranks."""
    starts = np.arange(0, source_LER.shape[2], ranks_per_node)
    by_node_LEG: Counts = np.add.reduceat(source_LER, starts, axis=2)
    return by_node_LEG


def distinct_nodes(trace: RoutingTrace, node_LE: ArrayLike) -> Counts:
    """Histogram of the number of different nodes a token's experts lie on: (L, K + 1).

    Args:
        trace: the tokens.
        node_LE: the node of each logical expert, (layers, experts), or (experts,) for all layers alike.
    """
    node = np.broadcast_to(np.asarray(node_LE, dtype=np.int32), (trace.num_layers, trace.num_experts))
    histogram_LN = np.zeros((trace.num_layers, trace.top_k + 1), dtype=np.int64)
    for layer in range(trace.num_layers):
        nodes_TK = np.sort(node[layer][trace.experts_TLK[:, layer]], axis=1)
        distinct_T = 1 + (nodes_TK[:, 1:] != nodes_TK[:, :-1]).sum(axis=1)
        histogram_LN[layer] = np.bincount(distinct_T, minlength=trace.top_k + 1)
    return histogram_LN


@dataclass(frozen=True)
class RoutingStatistics:
    """The counts of one trace.

    Args:
        num_tokens: tokens counted.
        top_k: experts per token.
        load_LE: see `expert_load`.
        coactivation_LEE: see `coactivation`.
        source_LER: see `source_traffic`.
        window_load_WLE: the load in each of W windows of equal token count, in time order.
        distinct_nodes_LN: per name of an expert-to-node map, see `distinct_nodes`.
    """

    num_tokens: int
    top_k: int
    load_LE: Counts
    coactivation_LEE: Counts
    source_LER: Counts
    window_load_WLE: Counts
    distinct_nodes_LN: dict[str, Counts] = field(default_factory=dict)

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.load_LE.shape[0])

    @property
    def num_experts(self) -> int:
        """Logical experts per layer."""
        return int(self.load_LE.shape[1])

    def mean_distinct_nodes(self, name: str) -> NDArray[np.float64]:
        """Mean number of different nodes of a token in each layer (L,), under the map of this name."""
        histogram_LN = self.distinct_nodes_LN[name]
        mean_L: NDArray[np.float64] = histogram_LN @ np.arange(self.top_k + 1) / max(1, self.num_tokens)
        return mean_L


def collect(
    pieces: Iterable[RoutingTrace],
    num_tokens: int,
    *,
    num_windows: int = 8,
    nodes: Mapping[str, ArrayLike] | None = None,
) -> RoutingStatistics:
    """All counts in one pass over a trace's pieces.

    Args:
        pieces: the trace in time order, as `TraceFile.chunks()` or `[trace]` give it.
        num_tokens: of the whole trace; it sets where the windows lie.
        num_windows: windows of time for the drift; fewer where there are fewer tokens.
        nodes: expert-to-node maps by name, each (layers, experts) or (experts,).

    Raises:
        InputError: no piece, or pieces with more or fewer tokens than `num_tokens` in all.
    """
    edges = np.linspace(0, num_tokens, max(1, min(num_windows, num_tokens)) + 1).astype(np.int64)
    total: RoutingStatistics | None = None
    seen = 0
    for piece in pieces:
        counted = _count(piece, edges - seen, nodes or {})
        total = counted if total is None else _add(total, counted)
        seen += piece.num_tokens
    if total is None or seen != num_tokens:
        raise InputError(f"routing statistics: {num_tokens} tokens announced, {seen} came")
    return total


def _count(piece: RoutingTrace, edges: Counts, nodes: Mapping[str, ArrayLike]) -> RoutingStatistics:
    inside = np.clip(edges, 0, piece.num_tokens)
    windows = [
        expert_load(piece.take(slice(start, end)))
        for start, end in zip(inside[:-1].tolist(), inside[1:].tolist(), strict=True)
    ]
    return RoutingStatistics(
        piece.num_tokens,
        piece.top_k,
        np.sum(windows, axis=0),
        coactivation(piece),
        source_traffic(piece),
        np.stack(windows),
        {name: distinct_nodes(piece, node_LE) for name, node_LE in nodes.items()},
    )


def _add(one: RoutingStatistics, two: RoutingStatistics) -> RoutingStatistics:
    return RoutingStatistics(
        one.num_tokens + two.num_tokens,
        one.top_k,
        one.load_LE + two.load_LE,
        one.coactivation_LEE + two.coactivation_LEE,
        _add_widened(one.source_LER, two.source_LER),
        one.window_load_WLE + two.window_load_WLE,
        {name: counts + two.distinct_nodes_LN[name] for name, counts in one.distinct_nodes_LN.items()},
    )


def _add_widened(one: Counts, two: Counts) -> Counts:
    """Sum of source traffic of pieces that know different numbers of ranks."""
    if one.shape[2] < two.shape[2]:
        one, two = two, one
    return one + np.pad(two, ((0, 0), (0, 0), (0, one.shape[2] - two.shape[2])))


def _per_layer(trace: RoutingTrace, index: Any, shape: tuple[int, ...]) -> Counts:
    """Count `index(picks_TK)` in every layer; the indices are flat into `shape`."""
    size = int(np.prod(shape))
    counts = np.empty((trace.num_layers, size), dtype=np.int64)
    for layer in range(trace.num_layers):
        picks_TK = trace.experts_TLK[:, layer].astype(np.int64)
        counts[layer] = np.bincount(index(picks_TK).reshape(-1), minlength=size)
    return counts.reshape(trace.num_layers, *shape)
