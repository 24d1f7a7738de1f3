"""Attention by heads: MHA, GQA, MQA, with or without a window."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from wingspan.limits import MOST_WIDTH, ContextTokens, Heads, Parameters, Width
from wingspan.specs.mixers.base import BaseMixer, Matrices
from wingspan.specs.mixers.core import Core, Recurrence
from wingspan.specs.mixers.index import TokenIndex
from wingspan.specs.reading import Spec


class Convolution(Spec):
    """Mixes what is projected with that of the last tokens: queries and keys (arXiv:2510.04476), keys and values."""

    weights: Parameters = Field(description="of its filters; among the mixer's `extra_parameters` too")
    kept_values: Parameters = Field(description="of the last tokens, for each sequence")
    kept_value_bytes: Literal[2, 4] = Field(
        default=2, description="of one of them, BF16 or FP32 (as transformers keeps it)"
    )

    @property
    def kept_bytes(self) -> int:
        """Bytes of the last tokens, for each sequence."""
        return self.kept_values * self.kept_value_bytes


class HeadAttention(BaseMixer):
    """Multi-head attention (MHA), or with fewer key and value heads (GQA, MQA).

    The cache keeps one key and one value per key-value head and token, of the last `window_tokens` where there is a
    window (or a chunk, which is as long at most).
    """

    kind: Literal["heads"] = "heads"
    kv_heads: Heads
    head_dim: Heads
    query_rank: Width | None = Field(default=None, description="None: queries are not compressed")
    value_dim: Heads | None = Field(default=None, description="width of one head's value; None: head_dim")
    window_tokens: ContextTokens | None = Field(default=None, description="context that it sees; None: all")
    gated_output: Literal["none", "head", "values"] = Field(
        default="none", description="a gate on the output: none, one per head, or one per value"
    )
    further_columns: int = Field(
        default=0,
        ge=0,
        le=MOST_WIDTH,
        description="outputs projected beside: relative places, sinks, filters",
    )
    keys_are_values: bool = Field(default=False, description="one projection gives keys and values")
    own_cache: bool = Field(default=True, description="False: reads keys and values of an earlier layer")
    convolution: Convolution | None = None
    index: TokenIndex | None = Field(default=None, description="chooses what is read; None: everything is")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def _value_dim(self) -> int:
        return self.head_dim if self.value_dim is None else self.value_dim

    def projections(self, hidden: int) -> Matrices:
        """Queries, keys, values, a gate and what else is projected as one product, and the output."""
        queries, attended = self.heads * self.head_dim, self.heads * self._value_dim
        gate = {"none": 0, "head": self.heads, "values": attended}[self.gated_output]
        values = 0 if self.keys_are_values else self._value_dim
        both = self.kv_heads * (self.head_dim + values) if self.own_cache else 0
        # The index's queries and its one key lead from the hidden state as well.
        chosen = (self.index.heads + 1) * self.index.head_dim if self.index else 0
        inward = both + gate + chosen + self.further_columns
        if self.query_rank is None:
            return ((hidden, queries + inward), (attended, hidden))
        return ((hidden, self.query_rank + inward), (self.query_rank, queries), (attended, hidden))

    def cache_share(self, group: int) -> float:
        """As far as there are key-value heads."""
        return 1 / min(group, self.kv_heads)

    @property
    def values_per_token(self) -> int:
        """A key and a value per key-value head, and the index's key."""
        own = self.kv_heads * (self.head_dim + self._value_dim) if self.own_cache else 0
        return own + (self.index.kept_values if self.index else 0)

    def cached_values(self, context: ArrayLike) -> NDArray[np.float64]:
        """Those of the window."""
        kept = np.asarray(context, dtype=np.float64)
        if self.window_tokens is not None:
            kept = np.minimum(kept, self.window_tokens)
        return kept * self.values_per_token

    @property
    def state_bytes(self) -> int:
        """What a convolution keeps."""
        return self.convolution.kept_bytes if self.convolution else 0

    def recurrence(self, group: int) -> Recurrence | None:
        """The convolution of a rank's heads."""
        if self.convolution is None:
            return None
        return Recurrence(2 * self.convolution.weights / group, self.state_bytes * self.cache_share(group))

    def cores(self, group: int, *, absorbed: bool) -> tuple[Core, ...]:  # noqa: ARG002 - alike in both
        """The heads of a rank against its key-value heads, and an index before them."""
        read = round(self.kv_heads * self.cache_share(group)) * (self.head_dim + self._value_dim)
        most = self.index.top_tokens if self.index else self.window_tokens
        main = Core(self.heads // group, self.head_dim, self._value_dim, read, most)
        return (self.index.core, main) if self.index else (main,)
