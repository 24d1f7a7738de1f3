"""Latent attention (MLA), and with an index that chooses the tokens to read (DSA)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from wingspan.limits import ContextTokens, Heads, Width
from wingspan.specs.mixers.base import BaseMixer, Matrices, Products
from wingspan.specs.mixers.core import Core
from wingspan.specs.mixers.index import TokenIndex


class LatentAttention(BaseMixer):
    """Multi-head latent attention (MLA, arXiv:2405.04434 section 2.1): the cache keeps one compressed row a token.

    The cached row has `kv_rank + rope_dim` values, whatever the number of heads; an index adds its key.
    """

    kind: Literal["latent"] = "latent"
    query_rank: Width | None = Field(default=None, description="None: queries are not compressed")
    kv_rank: Width
    nope_dim: Heads
    rope_dim: int = Field(ge=0, le=1 << 14, description="0: no position is rotated in")
    value_dim: Heads
    index: TokenIndex | None = Field(
        default=None, description="chooses what is read; None: everything is, or what the layer before chose"
    )
    shared_top_tokens: ContextTokens | None = Field(
        default=None, description="tokens read by a layer that takes the choice of one before"
    )
    gated_output: Literal["none", "head", "values"] = Field(
        default="none", description="a gate on the output: none, one per head, or one per value"
    )

    gate_from_queries: bool = Field(
        default=False,
        description="a gate per value comes with the queries, from the compressed ones before and after their norm",
    )
    window_tokens: ContextTokens | None = Field(default=None, description="context that it sees; None: all")
    own_cache: bool = Field(default=True, description="False: reads the compressed rows of an earlier layer")

    def projections(self, hidden: int) -> Matrices:
        """Down and up again for queries, and for keys with values; an index's own; the output."""
        return (*self._down(hidden), *self._index_projections(hidden), *self._up(hidden))

    def products(self, hidden: int, group: int, *, absorbed: bool) -> Products:
        """Compressed rows are of all heads: each rank computes them, and what the index reads, whole."""
        *inward, (attended, out) = self._up(hidden)
        inward = [each for each in inward if not (absorbed and each == self._keys_and_values)]
        cut = [(inputs, outputs / group) for inputs, outputs in inward]
        return (*self._down(hidden), *self._index_projections(hidden), *cut, (attended / group, out))

    def absorbing(self, group: int) -> Products:
        """Queries by the matrix of keys, and what was attended to by that of values."""
        heads = self.heads / group
        return ((self.nope_dim, heads * self.kv_rank), (self.kv_rank, heads * self.value_dim))

    @property
    def _keys_and_values(self) -> tuple[int, int]:
        return (self.kv_rank, self.heads * (self.nope_dim + self.value_dim))

    def _down(self, hidden: int) -> Matrices:
        """From the hidden state to compressed queries and the row that is cached: one product."""
        kept = self.kv_rank + self.rope_dim if self.own_cache else 0
        columns = (self.query_rank or 0) + kept
        return ((hidden, columns),) if columns else ()

    def _up(self, hidden: int) -> Matrices:
        """From compressed rows, or the hidden state, to heads; a gate; the output."""
        queries = self.heads * (self.nope_dim + self.rope_dim)
        to_queries = (self.query_rank or hidden, queries)
        if self.query_rank is not None and self.gate_from_queries:
            to_queries = (2 * self.query_rank, queries + self.heads * self.value_dim)
        gates = {"none": 0, "head": self.heads, "values": self.heads * self.value_dim}[self.gated_output]
        gate: Matrices = ((hidden, gates),) if gates else ()
        return (to_queries, self._keys_and_values, *gate, (self.heads * self.value_dim, hidden))

    def _index_projections(self, hidden: int) -> Matrices:
        if self.index is None:
            return ()
        # Queries from the compressed ones; a key and one weight per head from the hidden state.
        width = self.index.heads * self.index.head_dim
        return ((self.query_rank or hidden, width), (hidden, self.index.kept_values + self.index.heads))

    def cached_values(self, context: ArrayLike) -> NDArray[np.float64]:
        """Those of the window."""
        kept = np.asarray(context, dtype=np.float64)
        if self.window_tokens is not None:
            kept = np.minimum(kept, self.window_tokens)
        return kept * self.values_per_token

    def cache_share(self, group: int) -> float:  # noqa: ARG002 - as every kind takes it
        """A latent row is kept whole by each rank."""
        return 1.0

    @property
    def values_per_token(self) -> int:
        """The compressed row, and the index's key."""
        own = self.kv_rank + self.rope_dim if self.own_cache else 0
        return own + (self.index.kept_values if self.index else 0)

    def cores(self, group: int, *, absorbed: bool) -> tuple[Core, ...]:
        """The index over all tokens, and all heads over the rows that are read.

        Absorbed, all heads read one latent row (DeepSeek-V3: 512 + 64); otherwise keys and values are expanded per
        head (DeepSeek-V3: 128 + 64 and 128).
        """
        heads, row = self.heads // group, self.kv_rank + self.rope_dim
        most = self.index.top_tokens if self.index else self.shared_top_tokens
        if absorbed and self.window_tokens is not None:
            most = self.window_tokens
        # Chosen rows differ from query to query: they are read as latent rows in a prefill too.
        if absorbed or most is not None:
            main = Core(heads, row, self.kv_rank, row, most)
        else:
            key = self.nope_dim + self.rope_dim
            main = Core(heads, key, self.value_dim, heads * (key + self.value_dim), self.window_tokens)
        if self.index is None:
            return (main,)
        return (self.index.core, main)

    def kept_columns(self, hidden: int, *, selective: bool) -> tuple[int, int]:
        """Selectively, the compressed rows are kept and projected up again."""
        every, attended = super().kept_columns(hidden, selective=selective)
        if not selective:
            return every, attended
        queries = self.query_rank or self.heads * (self.nope_dim + self.rope_dim)
        return queries + self.kv_rank + self.rope_dim, attended

    def recomputed(self, hidden: int) -> Matrices:
        """The up-projections of compressed rows."""
        compressed = (self.kv_rank, self.query_rank and self.query_rank * (1 + self.gate_from_queries))
        return tuple(matrix for matrix in self.projections(hidden)[:-1] if matrix[0] in compressed)
