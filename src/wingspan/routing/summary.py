"""A routing trace in figures, ready to be shown: from its counts to what a reader asks.

Shapes: L MoE layers, E logical experts, R home ranks, W windows of time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.routing.distinct import expected_distinct_nodes
from wingspan.routing.load import imbalance_per_layer
from wingspan.routing.statistics import RoutingStatistics
from wingspan.routing.structure import Pair, community_strength, drift, top_pairs


@dataclass(frozen=True)
class LayerFigures:
    """One MoE layer.

    Args:
        layer: MoE layer.
        imbalance: tokens of the fullest expert over the mean of all.
        hottest_expert: the fullest expert.
        hottest_share: share of the tokens that pick it.
        idle_experts: experts that no token picked.
        community: see `community_strength`; 0 where top-1 leaves no pairs.
        community_by_chance: what a sample of this size shows without any structure.
        drift: mean over windows, see `drift`; 0 with one window.
        drift_by_chance: what windows of this size show without any change.
    """

    layer: int
    imbalance: float
    hottest_expert: int
    hottest_share: float
    idle_experts: int
    community: float
    community_by_chance: float
    drift: float
    drift_by_chance: float


@dataclass(frozen=True)
class NodeFigures:
    """How many nodes a token's experts lie on, under one map from experts to nodes.

    Args:
        name: of the map.
        nodes: nodes that hold experts.
        mean: over all tokens and layers.
        uniform: what uniform routing gives.
        mean_per_layer: (L,).
        share_by_count: share of (token, layer) pairs with 0, 1, 2, ... top-k nodes.
    """

    name: str
    nodes: int
    mean: float
    uniform: float
    mean_per_layer: list[float]
    share_by_count: list[float]


@dataclass(frozen=True)
class RoutingSummary:
    """All figures of a trace: `imbalance` is the mean of the layers' own, `source_imbalance` that of the home ranks."""

    tokens: int
    num_layers: int
    num_experts: int
    top_k: int
    num_ranks: int
    windows: int
    imbalance: float
    source_imbalance: float
    layers: list[LayerFigures]
    nodes: list[NodeFigures]
    pairs: list[Pair]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def summarise(
    counts: RoutingStatistics, node_maps: dict[str, NDArray[np.int64]], pairs: int = 10
) -> RoutingSummary:
    """The figures of these counts.

    Args:
        counts: from `collect`, which was given the same node maps.
        node_maps: expert-to-node maps (L, E) by name.
        pairs: how many of the strongest pairs to name.
    """
    # Any one layer tells where tokens live: each token is counted top-k times in every layer.
    tokens_R = counts.source_LER[0].sum(axis=0) / counts.top_k
    imbalance_L = imbalance_per_layer(counts.load_LE)
    return RoutingSummary(
        tokens=counts.num_tokens,
        num_layers=counts.num_layers,
        num_experts=counts.num_experts,
        top_k=counts.top_k,
        num_ranks=counts.source_LER.shape[2],
        windows=len(counts.window_load_WLE),
        imbalance=float(imbalance_L.mean()),
        source_imbalance=float(imbalance_per_layer(tokens_R[None])[0]),
        layers=_layers(counts, imbalance_L),
        nodes=[_nodes(counts, name, node_LE) for name, node_LE in node_maps.items()],
        pairs=top_pairs(counts.coactivation_LEE, pairs),
    )


def _layers(counts: RoutingStatistics, imbalance_L: NDArray[np.float64]) -> list[LayerFigures]:
    community = community_strength(counts.coactivation_LEE)
    moved = drift(counts.window_load_WLE)
    share_LE = counts.load_LE / max(1, counts.num_tokens)
    none_L = np.zeros(counts.num_layers)
    drift_L = moved.value.mean(axis=0) if len(moved.value) else none_L
    drift_chance_L = moved.by_chance.mean(axis=0) if len(moved.value) else none_L
    return [
        LayerFigures(
            layer,
            float(imbalance_L[layer]),
            int(share_LE[layer].argmax()),
            float(share_LE[layer].max()),
            int((counts.load_LE[layer] == 0).sum()),
            float(community.value[layer]),
            float(community.by_chance[layer]),
            float(drift_L[layer]),
            float(drift_chance_L[layer]),
        )
        for layer in range(counts.num_layers)
    ]


def _nodes(counts: RoutingStatistics, name: str, node_LE: ArrayLike) -> NodeFigures:
    mean_L = counts.mean_distinct_nodes(name)
    node = np.atleast_2d(np.asarray(node_LE))
    uniform = [expected_distinct_nodes(node_E, counts.top_k) for node_E in np.unique(node, axis=0)]
    share_N = counts.distinct_nodes_LN[name].sum(axis=0) / max(1, counts.num_tokens * counts.num_layers)
    return NodeFigures(
        name,
        len(np.unique(node)),
        float(mean_L.mean()),
        float(np.mean(uniform)),
        mean_L.tolist(),
        share_N.tolist(),
    )
