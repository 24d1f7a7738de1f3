"""Routing and placement with which ranks are as uneven as somebody measured: for engines that print their balance.

A balancer places by loads that it saw; the step's own have moved since. By how much they moved decides how uneven the
ranks are, so that is what a known balance is turned into.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.balanced import rank_load
from wingspan.placement.eplb import eplb, without_twins
from wingspan.placement.spec import PlacementSpec
from wingspan.routing.shares import as_shares, draw_loads, log_normal
from wingspan.specs.model import Experts
from wingspan.specs.workload import RecordedRouting

Array = NDArray[np.float64]

SIGMA, GROUP_SIGMA = 0.51, 0.30
"""Deviations with which a log-normal is as uneven as recorded routing is on 8 and 32 ranks: fitted on these two.
lmsys.org, "Deploying DeepSeek with PD Disaggregation and Large-Scale Expert Parallelism on 96 H100 GPUs", May 2025."""
_SPREAD = 0.6
"""Deviation of the logarithm of the loads that a balancer plans from; its placement hides the value again."""


@dataclass(frozen=True)
class AtBalance:
    """Loads of a step, and where the experts lie, for a mean / max of the ranks' load that is known.

    Args:
        layers: MoE layers.
        experts: of each.
        ranks: EP size.
        slots: per layer and rank.
        nodes: that a balancer keeps groups of experts on.
        tokens: of a step, over all ranks: fewer are less even by chance.
    """

    layers: int
    experts: Experts
    ranks: int
    slots: int
    nodes: int
    tokens: int

    def planned(self, balance: float) -> tuple[PlacementSpec, RecordedRouting]:
        """Placed by loads from which the step's own have moved so far that the ranks are as uneven as that."""
        planned_LE, placement = _planned(self.layers, self.experts, self.ranks, self.slots, self.nodes)
        moved = np.random.default_rng(7).standard_normal(planned_LE.shape)

        def shares(sigma: float) -> Array:
            return as_shares(planned_LE * np.exp(sigma * moved), self.experts.per_token)

        sigma = _bisect(lambda value: self._balance(shares(value), placement), balance)
        return placement, _recorded(shares(sigma))

    def unplanned(self, balance: float) -> tuple[PlacementSpec, RecordedRouting]:
        """Experts in their order, under loads so skewed that the ranks are as uneven as that."""
        placement = PlacementSpec(ranks=self.ranks, experts_per_rank=self.slots)

        def shares(sigma: float) -> Array:
            return clustered(self.layers, self.experts, sigma)

        sigma = _bisect(lambda value: self._balance(shares(value), placement), balance)
        return placement, _recorded(shares(sigma))

    def _balance(self, shares_LE: Array, placement: PlacementSpec) -> float:
        load_LE = draw_loads(shares_LE, self.tokens, 1, 0)[0]
        load_LR = rank_load(placement.build(shares_LE), load_LE)
        return float((load_LR.mean(axis=1) / load_LR.max(axis=1)).mean())


def clustered(layers: int, experts: Experts, sigma: float = SIGMA) -> Array:
    """Shares as skewed as recorded ones, or by another deviation, with as much of it in common to neighbours."""
    together = sigma * GROUP_SIGMA / SIGMA
    return log_normal(layers, experts.count, experts.per_token, sigma, 7, together)


@lru_cache(maxsize=8)
def _planned(
    layers: int, experts: Experts, ranks: int, slots: int, nodes: int
) -> tuple[Array, PlacementSpec]:
    """Loads, and the experts placed by them as the engine does it: groups of experts stay on a node where they can."""
    planned_LE = log_normal(layers, experts.count, experts.per_token, _SPREAD, 1)
    slots_LRS = eplb(planned_LE, ranks, slots, nodes, experts.groups)
    return planned_LE, PlacementSpec.explicit(without_twins(slots_LRS, experts.count))


def _recorded(shares_LE: Array) -> RecordedRouting:
    return RecordedRouting(source="a published balance", loads=tuple(map(tuple, shares_LE.tolist())))


def _bisect(balance: Callable[[float], float], goal: float) -> float:
    """The deviation at which the balance falls to the goal; 0 where chance alone is less even."""
    low, high = 0.0, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if balance(middle) < goal else (middle, high)
    return low
