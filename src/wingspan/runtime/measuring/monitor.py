"""Live load: tokens per (MoE layer, logical expert), counted where the tokens live, always on.

Shapes: L MoE layers, E logical experts, T tokens, K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


class LoadMonitor:
    """Counts of this rank's own tokens; the sum over ranks is the load."""

    def __init__(self, num_layers: int, num_experts: int, device: torch.device) -> None:
        self.load_LE = torch.zeros((num_layers, num_experts), dtype=torch.int64, device=device)
        self._one = torch.ones((), dtype=torch.int64, device=device)
        self.observer: Callable[[int, torch.Tensor], None] | None = None
        """Sees every layer's choices (layer, experts_TK) as they are counted."""

    def count(self, layer: int, experts_TK: torch.Tensor) -> None:
        """Add one layer's choices."""
        if self.observer is not None:
            self.observer(layer, experts_TK)
        # No `bincount`: it would read a GPU's result back.
        expert_P = experts_TK.flatten().long()
        self.load_LE[layer].scatter_add_(0, expert_P, self._one.expand_as(expert_P))

    def take(self) -> torch.Tensor:
        """The counts since the last call, and begin anew."""
        taken = self.load_LE.clone()
        self.load_LE.zero_()
        return taken
