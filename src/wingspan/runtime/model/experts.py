"""The experts of this rank's slots: rows in, rows out.

transformers keeps a layer's experts as stacked parameters and says by a few flags how they are laid out. This
file reads those flags, so every architecture of its experts registry computes here.

Shapes: N rows, S slots of this rank, D hidden size, I intermediate size (2 I where gate and up are fused).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wingspan.runtime.model.slot_linear import SlotLinear, SlotWeights


@dataclass(frozen=True)
class ExpertWeights:
    """One expert, ready to take a slot."""

    up: SlotWeights
    down: SlotWeights


class LocalExperts:
    """The experts in this rank's slots of one MoE layer, ready to compute rows sorted by slot.

    Args:
        module: a transformers experts module whose parameters hold this rank's S slots along dimension 0
            (S may be 0). They are read at every call, so an optimiser's update is seen.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._up = SlotLinear(module, "gate_up_proj" if module.has_gate else "up_proj")
        self._down = SlotLinear(module, "down_proj")
        self.rows = 0
        """Rows computed since the start."""

    def __call__(
        self, rows_ND: torch.Tensor, counts_S: Sequence[int], *, in_place: bool = False
    ) -> torch.Tensor:
        """The experts' outputs, not yet weighted.

        Args:
            rows_ND: sorted by slot.
            counts_S: rows of each slot; zeros are welcome; the sum is N.
            in_place: the outputs may take the rows' place, where no gradient is kept.

        Returns:
            One output row (N, D) per input row. It depends on `rows_ND` and, with at least one slot, on the
            parameters even where N is 0, so that backward runs the same on every rank.
        """
        self.rows += len(rows_ND)
        if not len(counts_S):
            return rows_ND.clone()
        module: Any = self._module
        hidden_NI = self._up(rows_ND, counts_S)
        hidden_NI = module._apply_gate(hidden_NI) if module.has_gate else module.act_fn(hidden_NI)
        out_ND = self._down(hidden_NI, counts_S, rows_ND if in_place else None)
        return module.post_expert_norm(out_ND) if module.has_post_expert_norm else out_ND

    @property
    def weight_bytes(self) -> int:
        """Bytes of the experts' weights on this rank."""
        return self._up.weight_bytes + self._down.weight_bytes

    @property
    def slot_bytes(self) -> int:
        """Bytes of one expert's weights, whether or not this rank holds one."""
        return self._up.slot_bytes + self._down.slot_bytes

    def read(self, slot: int) -> torch.Tensor:
        """The weights of one slot as `slot_bytes` bytes in the CPU's memory, the same for every way to hold them."""
        return torch.cat([self._up.read(slot), self._down.read(slot)])

    def prepare(self, raw: torch.Tensor) -> ExpertWeights:
        """What another rank's `read` gave, in the form that this rank computes on."""
        up_bytes = self._up.slot_bytes
        return ExpertWeights(self._up.prepare(raw[:up_bytes]), self._down.prepare(raw[up_bytes:]))

    def replace(self, slots: Sequence[int | ExpertWeights]) -> None:
        """Hold these experts from now on, in this order: present slots by their number, new ones from `prepare`."""
        self._up.replace([s if isinstance(s, int) else s.up for s in slots])
        self._down.replace([s if isinstance(s, int) else s.down for s in slots])

    def pack(self) -> None:
        """End training: no gradient reaches these parameters any more, and the matrices take their fastest form."""
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)
        self._up.pack()
        self._down.pack()
