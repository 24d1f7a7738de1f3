"""What a mixer does between its projections: a core that reads cached tokens, or a recurrence that keeps a state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Core:
    """Queries of one layer against what the layer has cached, on one rank.

    Args:
        query_heads: heads of the queries on this rank.
        query_width: width of one head's query and key.
        value_width: width of one head's value; 0 where only scores are taken.
        cached_values: numbers read per key (keys and values of all heads; MLA: the latent vector).
        most: keys that a query sees at most (a window, a chunk, the chosen ones); None: all.
        stride: tokens of context that one key stands for.
    """

    query_heads: int
    query_width: int
    value_width: int
    cached_values: int
    most: int | None = None
    stride: int = 1

    @property
    def row_values(self) -> int:
        """Numbers of one query token's queries and values, all heads: read before its keys, written after."""
        return self.query_heads * (self.query_width + self.value_width)

    @property
    def flops_per_pair(self) -> float:
        """FLOP for one query token against one key, all heads."""
        return 2.0 * self.row_values

    def seen(self, context: ArrayLike) -> Floats:
        """Keys that a query sees after `context` tokens."""
        keys = np.asarray(context, dtype=np.float64) / self.stride
        return keys if self.most is None else np.minimum(keys, self.most)

    def pairs(self, length: ArrayLike) -> Floats:
        """Pairs of (query, key) over a prompt of `length` tokens, each query seeing the keys before it."""
        length = np.asarray(length, dtype=np.float64)
        if self.stride > 1:
            full = length if self.most is None else np.minimum(length, float(self.most * self.stride))
            return np.asarray(full * full / (2 * self.stride) + (length - full) * self.seen(length))
        seen = self.seen(length)
        return np.asarray(length * seen - seen * (seen - 1) / 2)


@dataclass(frozen=True)
class Recurrence:
    """A state that every token updates and reads, on one rank.

    Args:
        flops_per_token: of the update and the read.
        state_bytes: of one sequence; a decode step reads and writes them once.
    """

    flops_per_token: float
    state_bytes: float
