"""What the traffic asks of a placement, per step: load, experts picked together, where an expert's tokens live.

A sample is noisy: among 65,536 pairs of experts some look close by chance, and a plan that trusts them promises
gains that never come. So co-activation and sources are drawn towards what independence would give, the more so
the less they differ from it by more than counting noise.

Shapes: L layers, E experts, N nodes, R home ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.placement.replicate import checked_load
from wingspan.placement.topology import Topology
from wingspan.routing.statistics import RoutingStatistics, by_node
from wingspan.routing.structure import expected_coactivation

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Demand:
    """Tokens of one step.

    Args:
        load_LE: tokens per (layer, expert).
        source_LEN: the same by the node where the tokens live.
        together_LEE: tokens that pick both experts; zero diagonal, symmetric.
    """

    load_LE: Floats
    source_LEN: Floats
    together_LEE: Floats

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.load_LE.shape[0])

    @property
    def num_experts(self) -> int:
        """Logical experts per layer."""
        return int(self.load_LE.shape[1])

    @classmethod
    def of(cls, statistics: RoutingStatistics, topology: Topology, steps: int = 1) -> Demand:
        """The demand of a mean step, from the counts of a trace of `steps` steps.

        Raises:
            InputError: tokens live on ranks that the topology does not have, or `steps` is below 1.
        """
        ranks = statistics.source_LER.shape[2]
        if ranks > topology.ranks:
            raise InputError(
                f"the trace's tokens live on {ranks} ranks, the plan has {topology.ranks}; use --ranks {ranks} or "
                "spread the requests anew"
            )
        if steps < 1:
            raise InputError(f"steps: {steps} steps in the trace; it must be at least 1")
        missing = topology.ranks - ranks
        source_LER = np.pad(statistics.source_LER, ((0, 0), (0, 0), (0, missing)))
        source_LEN = by_node(source_LER, topology.ranks_per_node).astype(np.float64)
        together_LEE = statistics.coactivation_LEE.astype(np.float64)
        diagonal = np.arange(statistics.num_experts)
        together_LEE[:, diagonal, diagonal] = 0.0
        return cls(
            statistics.load_LE / steps,
            towards(source_LEN, _independent_sources(source_LEN)) / steps,
            towards(together_LEE, expected_coactivation(statistics.coactivation_LEE)) / steps,
        )

    @classmethod
    def of_load(cls, load_LE: ArrayLike, nodes: int) -> Demand:
        """Loads alone: tokens live everywhere alike, and no two experts go together more than by chance."""
        load = checked_load(load_LE)
        total = load.sum(axis=1)[:, None, None]
        chance = np.divide(
            load[:, :, None] * load[:, None, :],
            total,
            where=total > 0,
            out=np.zeros((1, 1, 1)) + 0 * total * load[:, :, None],
        )
        return cls(load, np.repeat(load[:, :, None] / nodes, nodes, axis=2), chance)


def towards(counts: Floats, expected: Floats) -> Floats:
    """Counts (layers, ...) drawn towards `expected` by the share of their scatter that counting noise explains.

    Counts that scatter like a Poisson sample around `expected` (mean of (c - e)^2 / e about 1) give `expected`;
    the larger the scatter, the more is kept of each difference: 1 - 1 / scatter.
    """
    axes = tuple(range(1, counts.ndim))
    noise_L = expected.sum(axis=axes)
    scatter_L = ((counts - expected) ** 2).sum(axis=axes)
    noise_share_L = np.divide(noise_L, scatter_L, out=np.ones_like(noise_L), where=scatter_L > noise_L)
    kept = (1 - noise_share_L).reshape(-1, *(1 for _ in axes))
    drawn: Floats = expected + kept * (counts - expected)
    return np.maximum(drawn, 0.0)


def _independent_sources(source_LEN: Floats) -> Floats:
    total = source_LEN.sum(axis=(1, 2), keepdims=True)
    product = source_LEN.sum(axis=2, keepdims=True) * source_LEN.sum(axis=1, keepdims=True)
    result: Floats = np.divide(product, total, out=np.zeros_like(source_LEN), where=total > 0)
    return result
