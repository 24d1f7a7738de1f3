"""The experts of this rank's slots: rows in, rows out.

transformers keeps a layer's experts as stacked parameters and says by a few flags how they are laid out. This
file reads those flags, so every architecture of its experts registry computes here.

Shapes: N rows, S slots of this rank, D hidden size, I intermediate size (2 I where gate and up are fused),
O and J the output and input size of one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


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

    def __call__(self, rows_ND: torch.Tensor, counts_S: Sequence[int]) -> torch.Tensor:
        """The experts' outputs, not yet weighted.

        Args:
            rows_ND: sorted by slot.
            counts_S: rows of each slot; zeros are welcome; the sum is N.

        Returns:
            One output row (N, D) per input row. It depends on `rows_ND` and, with at least one slot, on the
            parameters even where N is 0, so that backward runs the same on every rank.
        """
        if not len(counts_S):
            return rows_ND.clone()
        module: Any = self._module
        hidden_NI = self._up(rows_ND, counts_S)
        hidden_NI = module._apply_gate(hidden_NI) if module.has_gate else module.act_fn(hidden_NI)
        out_ND = self._down(hidden_NI, counts_S)
        return module.post_expert_norm(out_ND) if module.has_post_expert_norm else out_ND

    @property
    def weight_bytes(self) -> int:
        """Bytes of the experts' weights on this rank."""
        return self._up.weight_bytes + self._down.weight_bytes

    def pack(self) -> None:
        """End training: no gradient reaches these parameters any more, so none is computed or stored."""
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)


class SlotLinear:
    """One linear layer per slot, over rows sorted by slot."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module = module
        self._name = name

    @property
    def weight_SOJ(self) -> torch.Tensor:
        """The stacked matrices, output size first (a view where the module stores them transposed)."""
        weight: torch.Tensor = getattr(self._module, self._name)
        return weight.transpose(1, 2) if self._module.is_transposed else weight

    @property
    def bias_SO(self) -> torch.Tensor | None:
        """The stacked biases, where the architecture has them."""
        return getattr(self._module, f"{self._name}_bias") if self._module.has_bias else None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices and biases."""
        return self.weight_SOJ.nbytes + (0 if self.bias_SO is None else self.bias_SO.nbytes)

    def __call__(self, rows_NJ: torch.Tensor, counts_S: Sequence[int]) -> torch.Tensor:
        """Each row (N, J) through its slot's layer: (N, O)."""
        if len(counts_S) > 1 and rows_NJ.is_cuda and _grouped_product_fits(rows_NJ, self.weight_SOJ):
            return grouped_linear(rows_NJ, counts_S, self.weight_SOJ, self.bias_SO)
        return linear_by_slot(rows_NJ, counts_S, self.weight_SOJ, self.bias_SO)


def linear_by_slot(
    rows_NJ: torch.Tensor, counts_S: Sequence[int], weight_SOJ: torch.Tensor, bias_SO: torch.Tensor | None
) -> torch.Tensor:
    """One plain matrix product per slot with rows; for slot 0 where none has any, to keep the graph whole."""
    # One unbind, not S selects: backward then stacks the slots' gradients once and fills no S whole tensors.
    weights = weight_SOJ.unbind(0)
    biases = [None] * len(weights) if bias_SO is None else bias_SO.unbind(0)
    pieces = [
        F.linear(rows_NJ[start:end], weights[s], biases[s])
        for s, (start, end) in enumerate(pairwise(_bounds(counts_S)))
        if end > start
    ]
    if not pieces:
        return F.linear(rows_NJ, weights[0], biases[0])
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def grouped_linear(
    rows_NJ: torch.Tensor, counts_S: Sequence[int], weight_SOJ: torch.Tensor, bias_SO: torch.Tensor | None
) -> torch.Tensor:
    """One grouped matrix product over all slots: one kernel where there would be S small ones."""
    counts = torch.tensor(counts_S, device=rows_NJ.device)
    ends_S = counts.cumsum(0).to(torch.int32)
    out_NO = F.grouped_mm(rows_NJ, weight_SOJ.transpose(1, 2), offs=ends_S)
    if bias_SO is None:
        return out_NO
    return out_NO + bias_SO.repeat_interleave(counts, dim=0, output_size=rows_NJ.shape[0])


def _bounds(counts_S: Sequence[int]) -> list[int]:
    bounds = [0]
    for count in counts_S:
        bounds.append(bounds[-1] + count)
    return bounds


def _grouped_product_fits(rows_NJ: torch.Tensor, weight_SOJ: torch.Tensor) -> bool:
    """Whether the CUDA kernel takes these: some rows, BF16, and sizes that fit its 16-byte accesses."""
    aligned = all(size * rows_NJ.element_size() % 16 == 0 for size in weight_SOJ.shape[1:])
    return rows_NJ.shape[0] > 0 and rows_NJ.dtype == weight_SOJ.dtype == torch.bfloat16 and aligned
