"""Numbers that say what a trace's counts mean: how far the load drifts, how strongly experts go together.

Both are distances between shares, and finite samples differ by chance: each comes with the distance that chance
alone would give, so that noise is not taken for structure.

Shapes: L MoE layers, E logical experts, W windows of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from wingspan.routing.coactivation import expected_coactivation, off_diagonal


@dataclass(frozen=True)
class Distance:
    """A total variation distance (0: the same shares, 1: nothing in common), and what chance alone gives."""

    value: NDArray[np.float64]
    by_chance: NDArray[np.float64]


def drift(window_load_WLE: NDArray[np.int64]) -> Distance:
    """How much of each layer's load sits on other experts than in the window before: (W - 1, L)."""
    choices_WL1 = np.maximum(window_load_WLE.sum(axis=2, keepdims=True), 1)
    share_WLE = window_load_WLE / choices_WL1
    distance_VL = np.abs(np.diff(share_WLE, axis=0)).sum(axis=2) / 2
    pooled_VLE = (share_WLE[1:] + share_WLE[:-1]) / 2
    variance_VLE = pooled_VLE * (1 - pooled_VLE) * (1 / choices_WL1[1:] + 1 / choices_WL1[:-1])
    return Distance(distance_VL, _mean_absolute(variance_VLE).sum(axis=2) / 2)


def community_strength(coactivation_LEE: NDArray[np.int64]) -> Distance:
    """How much of each layer's co-activation sits on other pairs than its loads alone would give: (L,)."""
    pairs_LEE = off_diagonal(coactivation_LEE)
    total_L11 = np.maximum(pairs_LEE.sum(axis=(1, 2), keepdims=True), 1)
    expected_LEE = expected_coactivation(coactivation_LEE)
    distance_L = np.abs(pairs_LEE - expected_LEE).sum(axis=(1, 2)) / total_L11[:, 0, 0] / 2
    chance_L = _mean_absolute(expected_LEE).sum(axis=(1, 2)) / total_L11[:, 0, 0] / 2
    return Distance(distance_L, chance_L)


@dataclass(frozen=True)
class Pair:
    """Two experts of a layer that tokens pick together; `lift` is how often, relative to what their loads give."""

    layer: int
    first: int
    second: int
    tokens: int
    lift: float


def top_pairs(coactivation_LEE: NDArray[np.int64], count: int) -> list[Pair]:
    """The pairs that tokens pick together most beyond what their loads give, by excess tokens, most first."""
    first_P, second_P = np.triu_indices(coactivation_LEE.shape[1], k=1)
    tokens_LP = coactivation_LEE[:, first_P, second_P]
    expected_LP = expected_coactivation(coactivation_LEE)[:, first_P, second_P]
    excess = (tokens_LP - expected_LP).reshape(-1)
    best = np.argsort(-excess, kind="stable")[:count]
    pairs = []
    for place in best[excess[best] > 0]:
        layer, pair = divmod(int(place), len(first_P))
        tokens, expected = int(tokens_LP[layer, pair]), float(expected_LP[layer, pair])
        lift = tokens / expected if expected > 0 else float("inf")
        pairs.append(Pair(layer, int(first_P[pair]), int(second_P[pair]), tokens, lift))
    return pairs


def pair_lift(coactivation_LEE: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often two experts are picked together, relative to what their loads give: (L, E, E); diagonal 0."""
    expected_LEE = expected_coactivation(coactivation_LEE)
    lift_LEE = np.zeros_like(expected_LEE)
    np.divide(off_diagonal(coactivation_LEE), expected_LEE, out=lift_LEE, where=expected_LEE > 0)
    return lift_LEE


def order_by_company(lift_EE: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order of one layer's experts that puts those side by side that go together (average linkage)."""
    if len(lift_EE) < 3:
        return np.arange(len(lift_EE))
    distance_EE = 1 / (1 + (lift_EE + lift_EE.T) / 2)
    np.fill_diagonal(distance_EE, 0.0)
    tree = linkage(squareform(distance_EE, checks=False), method="average", optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)


def _mean_absolute(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of |x| for a normal x of mean 0: sqrt(2 v / pi)."""
    result: NDArray[np.float64] = np.sqrt(2 / np.pi * variance)
    return result
