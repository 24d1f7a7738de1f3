"""What the traffic asks of a placement: load, experts picked together, where an expert's tokens live.

A sample is noisy: among 65,536 pairs of experts some look close by chance, and a few long requests make an expert
look at home on their nodes. A plan that trusts this promises gains that never come. So the sample is counted in two
halves, an earlier and a later one, and of each structure only as much is kept as the halves have in common.

Shapes: L layers, E experts, G nodes (scale-up domains), R home ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError
from wingspan.routing.coactivation import expected_coactivation, off_diagonal
from wingspan.routing.load import checked_load
from wingspan.routing.statistics import RoutingStatistics, by_node
from wingspan.traffic.distinct import Choice
from wingspan.traffic.layers import Domains

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Demand:
    """Tokens of one step.

    Args:
        load_LE: tokens per (layer, expert).
        choice: what each token picks.
        source_LEG: the load by the node where the tokens live; None where they live on all ranks alike.
        together_LEE: tokens that pick both experts, zero diagonal, symmetric; None where experts go together no more
            than by chance.
    """

    load_LE: Floats
    choice: Choice
    source_LEG: Floats | None = None
    together_LEE: Floats | None = None

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.load_LE.shape[0])

    @property
    def num_experts(self) -> int:
        """Logical experts per layer."""
        return int(self.load_LE.shape[1])

    def of_layers(self, layers: slice) -> Demand:
        """Take these layers alone."""
        source, together = self.source_LEG, self.together_LEE
        return Demand(
            self.load_LE[layers],
            self.choice,
            None if source is None else source[layers],
            None if together is None else together[layers],
        )

    @property
    def tokens_L(self) -> Floats:
        """Tokens of each layer."""
        return np.asarray(self.load_LE.sum(axis=1) / self.choice.per_token)

    def sources(self, nodes: int) -> Floats:
        """`source_LEG`, or the load spread over so many nodes evenly."""
        if self.source_LEG is not None:
            return self.source_LEG
        return np.repeat(self.load_LE[:, :, None] / nodes, nodes, axis=2)

    def company(self) -> Floats:
        """`together_LEE`, or what chance gives."""
        if self.together_LEE is not None:
            return self.together_LEE
        total_L = np.maximum(self.load_LE.sum(axis=1), 1e-300)
        chance_LEE = self.load_LE[:, :, None] * self.load_LE[:, None, :]
        chance_LEE *= ((self.choice.per_token - 1) / total_L)[:, None, None]
        diagonal = np.arange(self.num_experts)
        chance_LEE[:, diagonal, diagonal] = 0.0
        return chance_LEE

    @classmethod
    def of(
        cls,
        earlier: RoutingStatistics,
        later: RoutingStatistics,
        choice: Choice,
        domains: Domains,
        steps: float = 1,
    ) -> Demand:
        """The demand of a mean step, from the counts of the two halves of a trace of `steps` steps.

        Raises:
            InputError: tokens live on ranks that there are not, or `steps` is not above 0.
        """
        if not steps > 0:
            raise InputError(f"steps: {steps} steps in the trace; it must be above 0")
        halves = (earlier, later)
        sources = [_source_by_node(half, domains) for half in halves]
        company = [off_diagonal(half.coactivation_LEE) for half in halves]
        source_LEG = common(sources, [_independent(source) for source in sources])
        together_LEE = common(company, [expected_coactivation(half.coactivation_LEE) for half in halves])
        load_LE = (earlier.load_LE + later.load_LE) / steps
        return cls(load_LE, choice, source_LEG / steps, together_LEE / steps)

    @classmethod
    def of_load(cls, load_LE: ArrayLike, choice: Choice) -> Demand:
        """Loads alone: tokens live everywhere alike, and no two experts go together more than by chance."""
        return cls(checked_load(load_LE), choice)


def common(halves: list[Floats], expected: list[Floats]) -> Floats:
    """The sum of two halves' counts (layers, ...), drawn towards what independence would give.

    Of the differences d1, d2 between counts and expectation the sum keeps the share d1 . d2 / |mean of d1, d2|^2,
    per layer: all of it where the halves agree, none where they have nothing in common.
    """
    one, two = (half - expectation for half, expectation in zip(halves, expected, strict=True))
    both = one + two
    axes = "abc"[: one.ndim - 1]
    agreed_L = np.einsum(f"l{axes},l{axes}->l", one, two)
    power_L = np.einsum(f"l{axes},l{axes}->l", both, both) / 4
    kept_L = np.divide(agreed_L, power_L, out=np.zeros_like(power_L), where=power_L > 0).clip(0.0, 1.0)
    both *= kept_L.reshape(-1, *(1 for _ in axes))
    both += expected[0]
    both += expected[1]
    return np.maximum(both, 0.0, out=both)


def _source_by_node(half: RoutingStatistics, domains: Domains) -> Floats:
    ranks = half.source_LER.shape[2]
    if ranks > domains.ranks:
        raise InputError(
            f"the trace's tokens live on {ranks} ranks, the placement has {domains.ranks}; use {ranks} ranks, or "
            "spread the requests anew"
        )
    padded_LER = np.pad(half.source_LER, ((0, 0), (0, 0), (0, domains.ranks - ranks)))
    return by_node(padded_LER, domains.width).astype(np.float64)


def _independent(source_LEG: Floats) -> Floats:
    """Every expert's tokens spread over nodes as all tokens are."""
    total = source_LEG.sum(axis=(1, 2), keepdims=True)
    product = source_LEG.sum(axis=2, keepdims=True) * source_LEG.sum(axis=1, keepdims=True)
    result: Floats = product / np.maximum(total, 1)
    return result
