"""Mixers that keep a state instead of a cache: linear attention, state spaces, short convolutions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wingspan.limits import Width
from wingspan.specs.mixers.base import BaseMixer, Matrices
from wingspan.specs.mixers.core import Recurrence

_FILTER_BYTES = 2
"""The inputs of a convolution stay in BF16 (as transformers keeps them)."""
_DECAY_FLOPS, _UPDATE_FLOPS, _READ_FLOPS = 1, 2, 2
"""Per value of a state and token: its decay, what the outer product adds to it, and its share of the output."""


class LinearMixer(BaseMixer):
    """A state of `heads` matrices, `key_dim x value_dim` each, behind a short convolution.

    Gated delta net, KDA, lightning attention and Mamba differ in the matrices that lead in, which `inward` gives;
    what they keep and compute per token is of one form. A short convolution alone has states of no size.
    `heads` are those over which tensor parallelism can cut: where several heads of values share one of keys, those
    of keys, and `value_dim` is that of all that share it.
    """

    kind: Literal["linear"] = "linear"
    key_dim: int = Field(default=0, ge=0, le=1 << 14)
    value_dim: int = Field(default=0, ge=0, le=1 << 14)
    corrects: bool = Field(
        default=False, description="a delta rule: what the state holds for a key is read before it is updated"
    )
    state_value_bytes: Literal[2, 4] = Field(
        default=4, description="of one value of a state, FP32 (as transformers keeps it) or BF16"
    )
    inward: tuple[tuple[Width, Width], ...] = Field(
        description="(inputs, outputs) of every matrix but the last"
    )
    attended: Width = Field(description="inputs of the last matrix, which leads back to the hidden state")
    filtered: int = Field(default=0, ge=0, le=1 << 24, description="channels of the convolution")
    filter_taps: int = Field(default=0, ge=0, le=1 << 10, description="values of each channel that are kept")

    def projections(self, hidden: int) -> Matrices:
        """Those that lead in, and the one back."""
        return (*self.inward, (self.attended, hidden))

    @property
    def state_values(self) -> int:
        """Values of all heads' states."""
        return self.heads * self.key_dim * self.value_dim

    @property
    def state_bytes(self) -> int:
        """State and the convolution's last inputs."""
        return self.state_values * self.state_value_bytes + self.filtered * self.filter_taps * _FILTER_BYTES

    def recurrence(self, group: int) -> Recurrence:
        """The heads of a rank."""
        reads = 2 if self.corrects else 1
        each = _DECAY_FLOPS + _UPDATE_FLOPS + reads * _READ_FLOPS
        flops = each * self.state_values + 2 * self.filtered * self.filter_taps
        return Recurrence(flops / group, self.state_bytes * self.cache_share(group))
