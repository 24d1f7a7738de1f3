"""What every mixer of tokens answers: its matrices, what it caches, and what it computes between them."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from wingspan.limits import Heads, Parameters
from wingspan.specs.mixers.core import Core, Recurrence
from wingspan.specs.reading import Spec

Matrices = tuple[tuple[int, int], ...]
"""(inputs, outputs) of each."""
Products = tuple[tuple[float, float], ...]
"""(inputs, outputs) of each product of a rank, means where a group cannot cut them evenly."""


class BaseMixer(Spec):
    """One mixer of one layer. Figures are values, not bytes, unless a name says otherwise."""

    heads: Heads = Field(description="over which tensor-parallel ranks can cut it")
    extra_parameters: Parameters = Field(
        default=0, description="biases, norms of queries and keys, sinks, filters"
    )

    idle_parameters: Parameters = Field(
        default=0, description="held beside the matrices of `projections`, and not used by every token"
    )

    @abstractmethod
    def projections(self, hidden: int) -> Matrices:
        """Every matrix of one layer, the one back to `hidden` last; products that share an input are one."""

    def products(self, hidden: int, group: int, *, absorbed: bool) -> Products:  # noqa: ARG002 - latent rows differ
        """What one of `group` tensor-parallel ranks multiplies: a share of the outputs, and of the last one's inputs.

        Args:
            hidden: of the model.
            group: ranks that share the heads.
            absorbed: as in `cores`; what is absorbed then is in `absorbing`.
        """
        *inward, (attended, out) = self.projections(hidden)
        return (*((inputs, outputs / group) for inputs, outputs in inward), (attended / group, out))

    def absorbing(self, group: int) -> Products:  # noqa: ARG002 - most kinds have none
        """Products by which one of `group` ranks turns queries and values to and from latent rows, head by head."""
        return ()

    def cache_share(self, group: int) -> float:
        """Share of what is cached that one of `group` tensor-parallel ranks holds."""
        return 1 / min(group, self.heads)

    @property
    def values_per_token(self) -> int:
        """Cached values for each of the tokens that are kept."""
        return 0

    def cached_values(self, context: ArrayLike) -> NDArray[np.float64]:
        """Values cached for a sequence of `context` tokens."""
        return np.asarray(context, dtype=np.float64) * self.values_per_token

    @property
    def state_bytes(self) -> int:
        """Bytes kept for a sequence however long it is."""
        return 0

    def cores(self, group: int, *, absorbed: bool) -> tuple[Core, ...]:  # noqa: ARG002 - not every kind has both
        """What one of `group` tensor-parallel ranks computes against the cache.

        Args:
            group: ranks that share the heads.
            absorbed: one new token a sequence, for which a latent row need not be expanded.
        """
        return ()

    def recurrence(self, group: int) -> Recurrence | None:  # noqa: ARG002 - most kinds have none
        """What one of `group` tensor-parallel ranks computes on the state."""
        return None

    def kept_columns(self, hidden: int, *, selective: bool) -> tuple[int, int]:  # noqa: ARG002 - only latent rows differ
        """Outputs of the projections that backward needs of a token, and inputs of the last one.

        Args:
            hidden: of the model.
            selective: what `recomputed` gives again is not kept.
        """
        *inward, (attended, _) = self.projections(hidden)
        return sum(columns for _, columns in inward), attended

    def recomputed(self, hidden: int) -> Matrices:  # noqa: ARG002 - most kinds have none
        """Matrices whose products selective recomputation takes once more."""
        return ()
