"""Hyper-connections: several residual streams of one token, mixed before and after each part of a layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wingspan.limits import Width
from wingspan.specs.mixers.base import BaseMixer, Matrices, Products


class StreamMixer(BaseMixer):
    """What mixes a token's streams (arXiv:2409.19606): matrices alone, which keep nothing of other tokens."""

    kind: Literal["streams"] = "streams"
    matrices: tuple[tuple[Width, Width], ...] = Field(min_length=1, description="(inputs, outputs) of each")

    def projections(self, hidden: int) -> Matrices:  # noqa: ARG002 - the streams have widths of their own
        """All of them; none leads back to one hidden state."""
        return self.matrices

    def products(self, hidden: int, group: int, *, absorbed: bool) -> Products:  # noqa: ARG002 - as `projections`
        """A share of every one's outputs."""
        return tuple((inputs, outputs / group) for inputs, outputs in self.matrices)

    def kept_columns(self, hidden: int, *, selective: bool) -> tuple[int, int]:  # noqa: ARG002 - alike in both
        """Every product."""
        return sum(columns for _, columns in self.matrices), 0
