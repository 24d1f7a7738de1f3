"""Attention over a window of tokens and over compressed ones before it (DeepSeek-V4)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from wingspan.limits import ContextTokens, Heads, Width
from wingspan.specs.mixers.base import BaseMixer, Matrices
from wingspan.specs.mixers.core import Core
from wingspan.specs.mixers.index import TokenIndex


class CompressedAttention(BaseMixer):
    """One key, which is the value too, for all heads: the window's tokens as they are, older ones `rate` to one.

    With an index the layer reads the `top_tokens` compressed ones that it scores best (compressed sparse attention),
    without it all of them (heavily compressed attention). A rate of 0 leaves the window alone.
    """

    kind: Literal["compressed"] = "compressed"
    query_rank: Width
    head_dim: Heads
    window_tokens: ContextTokens
    rate: int = Field(default=0, ge=0, le=1 << 16, description="tokens that a compressed one stands for")
    index: TokenIndex | None = None
    output_groups: Heads = Field(description="groups of heads that are projected each by itself")
    output_rank: Width = Field(description="outputs of each group")

    def projections(self, hidden: int) -> Matrices:
        """Queries down and up, keys, what compresses, the index's own, and the output in two steps."""
        attended, grouped = self.heads * self.head_dim, self.output_groups * self.output_rank
        return (
            (hidden, self.query_rank + self.head_dim),
            (self.query_rank, attended),
            *self._compressing(hidden),
            (attended // self.output_groups, grouped),
            (grouped, hidden),
        )

    def _compressing(self, hidden: int) -> Matrices:
        if not self.rate:
            return ()
        if self.index is None:
            return ((hidden, 2 * self.head_dim),)
        # Neighbouring groups overlap, so that keys and their gates are twice as wide.
        key, heads = self.index.head_dim, self.index.heads
        return ((hidden, 4 * self.head_dim + 4 * key + heads), (self.query_rank, heads * key))

    def cache_share(self, group: int) -> float:  # noqa: ARG002 - as every kind takes it
        """The one key is kept whole by each rank."""
        return 1.0

    @property
    def values_per_token(self) -> int:
        """Those of a token in the window, and the compressed ones rounded up to a token."""
        return self.head_dim if not self.rate else self.head_dim + -(-self._compressed // self.rate)

    @property
    def _compressed(self) -> int:
        return self.head_dim + (self.index.head_dim if self.index else 0)

    def cached_values(self, context: ArrayLike) -> NDArray[np.float64]:
        """The window's, and one compressed key for every `rate` tokens."""
        tokens = np.asarray(context, dtype=np.float64)
        kept = np.minimum(tokens, self.window_tokens) * self.head_dim
        return kept + tokens // self.rate * self._compressed if self.rate else kept

    def cores(self, group: int, *, absorbed: bool) -> tuple[Core, ...]:  # noqa: ARG002 - alike in both
        """The heads over the window, and over what is compressed."""
        heads, width = self.heads // group, self.head_dim
        window = Core(heads, width, width, width, self.window_tokens)
        if not self.rate:
            return (window,)
        if self.index is None:
            return (window, Core(heads, width, width, width, stride=self.rate))
        key = self.index.head_dim
        return (
            window,
            Core(self.index.heads, key, 0, key, stride=self.rate),
            Core(heads, width, width, width, self.index.top_tokens, self.rate),
        )
