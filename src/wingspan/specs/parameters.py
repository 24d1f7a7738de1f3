"""How many parameters each part of a model has."""

from __future__ import annotations

from wingspan.specs.reading import Spec


class Parameters(Spec):
    """Parameters of each part, over all layers; `expert` is one routed expert of one layer."""

    embedding: int = 0
    looked_up: int = 0
    """Further tables, counted in `embedding`, of which a token reads some rows."""
    idle: int = 0
    """What of `attention` a token does not use: heads that it did not choose."""
    head: int = 0
    attention: int = 0
    dense: int = 0
    router: int = 0
    shared_experts: int = 0
    norms: int = 0
    expert: int = 0
    twin: int = 0
    """What of `expert` only tokens of images use."""
    experts_per_layer: int = 0
    experts_per_token: int = 0
    rows_per_token: float = 0.0
    moe_layers: int = 0

    @property
    def routed_experts(self) -> int:
        """All routed experts."""
        return self.expert * self.experts_per_layer * self.moe_layers

    @property
    def beside_experts(self) -> int:
        """Everything but routed experts."""
        parts = (self.embedding, self.head, self.attention, self.dense, self.router, self.shared_experts)
        return sum(parts) + self.norms

    @property
    def total(self) -> int:
        """The whole model."""
        return self.beside_experts + self.routed_experts

    @property
    def active(self) -> int:
        """What one token of text uses."""
        used = (self.expert - self.twin) * self.rows_per_token * self.moe_layers
        return self.beside_experts - self.looked_up - self.idle + round(used)
