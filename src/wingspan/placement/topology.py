"""The plain numbers of a cluster and a model that a placement is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError


@dataclass(frozen=True)
class Topology:
    """Ranks on nodes, the speed of their links, and what a token costs on them.

    Args:
        ranks: EP size, spare ranks included.
        ranks_per_node: ranks that share the fast link; divides `ranks`.
        within_bytes_per_second: fast link of one rank, one direction.
        across_bytes_per_second: one network card, one direction.
        row_bytes: one token's hidden state as it travels; it goes out and its result comes back.
        expert_bytes: weights of one expert, for the cost of moving it.
        seconds_per_token: compute of one token in one expert.
        seconds_per_expert: least time of an expert that has any token: reading its weights once.
        cards_per_node: network cards of a node, shared evenly by its ranks; 0 means one per rank.
        once_per_node: a token crosses to each node once and is forwarded inside (the hierarchical dispatcher);
            else once per chosen expert (the flat dispatcher).

    Raises:
        InputError: a number that cannot be, or nodes that are not full.
    """

    ranks: int
    ranks_per_node: int
    within_bytes_per_second: float
    across_bytes_per_second: float
    row_bytes: int
    expert_bytes: int
    seconds_per_token: float
    seconds_per_expert: float = 0.0
    cards_per_node: int = 0
    once_per_node: bool = True

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.ranks_per_node < 1 or self.ranks % self.ranks_per_node:
            raise InputError(
                f"{self.ranks} ranks do not fill whole nodes of {self.ranks_per_node}; use a multiple of it "
                "(--ranks, --spare-ranks) or other nodes (--ranks-per-node)"
            )
        for name in ("within_bytes_per_second", "across_bytes_per_second", "row_bytes"):
            if not getattr(self, name) > 0:
                raise InputError(f"topology: {name} is {getattr(self, name)}; it must be greater than 0")
        for name in ("expert_bytes", "seconds_per_token", "seconds_per_expert"):
            if not getattr(self, name) >= 0:
                raise InputError(f"topology: {name} is {getattr(self, name)}; it must be 0 or more")
        if self.cards_per_node < 0 or self.ranks_per_node % self.cards:
            raise InputError(
                f"{self.ranks_per_node} ranks per node do not share {self.cards_per_node} network cards evenly"
            )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.ranks // self.ranks_per_node

    @property
    def cards(self) -> int:
        """Network cards of one node."""
        return self.cards_per_node or self.ranks_per_node

    def node_of(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """The node of each rank."""
        return rank // self.ranks_per_node

    def card_of(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """The network card of each rank, counted over all nodes."""
        return rank * self.cards // self.ranks_per_node

    @property
    def across_seconds_per_row(self) -> float:
        """Time of one row on one network card, out and back."""
        return 2 * self.row_bytes / self.across_bytes_per_second

    @property
    def within_seconds_per_row(self) -> float:
        """Time of one row on one rank's fast link, out and back."""
        return 2 * self.row_bytes / self.within_bytes_per_second

    @property
    def move_seconds_per_expert(self) -> float:
        """Time of one expert's weights on one network card; experts are counted one after another."""
        return self.expert_bytes / self.across_bytes_per_second
