"""One linear layer per slot, over rows sorted by slot: the matrix products of this rank's experts.

On the CPU the matrices can be packed once into the layout that oneDNN computes on, which plain `F.linear` makes
anew at every call. On CUDA several slots take one grouped product.

Shapes: N rows, S slots, O and J the output and input size of one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class SlotLinear:
    """The layer `name` of an experts module, one matrix per slot.

    Args:
        module: a transformers experts module; its flags `is_transposed` and `has_bias` say how it stores them.
        name: of the stacked matrices among its parameters.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module = module
        self._name = name
        self._packed: list[torch.Tensor] | None = None

    @property
    def weight_SOJ(self) -> torch.Tensor:
        """The stacked matrices, output size first (a view where the module stores them transposed)."""
        if self._packed is not None:
            return torch.stack([matrix_OJ.to_dense() for matrix_OJ in self._packed])
        weight: torch.Tensor = getattr(self._module, self._name)
        return weight.transpose(1, 2) if self._module.is_transposed else weight

    @property
    def bias_SO(self) -> torch.Tensor | None:
        """The stacked biases, where the architecture has them."""
        return getattr(self._module, f"{self._name}_bias") if self._module.has_bias else None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices and biases."""
        matrices = [self.weight_SOJ] if self._packed is None else self._packed
        return sum(m.nbytes for m in matrices) + (0 if self.bias_SO is None else self.bias_SO.nbytes)

    def pack(self) -> None:
        """Give the matrices to oneDNN in its own layout and free the module's; without effect off the CPU."""
        weight_SOJ = self.weight_SOJ.detach()
        if self._packed is not None or not _can_pack(weight_SOJ):
            return
        self._packed = [torch.ops.mkldnn._reorder_linear_weight(w.contiguous()) for w in weight_SOJ]
        parameter = getattr(self._module, self._name)
        parameter.data = parameter.data.new_empty(0)

    def __call__(self, rows_NJ: torch.Tensor, counts_S: Sequence[int]) -> torch.Tensor:
        """Each row (N, J) through its slot's layer: (N, O)."""
        if self._packed is not None:
            return packed_by_slot(rows_NJ, counts_S, self._packed, self.bias_SO)
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
    pieces = [F.linear(rows_NJ[start:end], weights[s], biases[s]) for s, start, end in _spans(counts_S)]
    return _joined(pieces) if pieces else F.linear(rows_NJ, weights[0], biases[0])


def packed_by_slot(
    rows_NJ: torch.Tensor,
    counts_S: Sequence[int],
    packed: Sequence[torch.Tensor],
    bias_SO: torch.Tensor | None,
) -> torch.Tensor:
    """`linear_by_slot` on matrices in oneDNN's own layout; no gradients."""
    pieces = [
        torch.ops.mkldnn._linear_pointwise(
            rows_NJ[start:end], packed[s], None if bias_SO is None else bias_SO[s], "none", [], ""
        )
        for s, start, end in _spans(counts_S)
    ]
    return _joined(pieces) if pieces else rows_NJ.new_empty((0, packed[0].shape[0]))


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


def _spans(counts_S: Sequence[int]) -> list[tuple[int, int, int]]:
    """(slot, first row, end) of every slot that has rows."""
    bounds = [0]
    for count in counts_S:
        bounds.append(bounds[-1] + count)
    return [(s, start, end) for s, (start, end) in enumerate(pairwise(bounds)) if end > start]


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _can_pack(weight_SOJ: torch.Tensor) -> bool:
    if not torch.backends.mkldnn.is_available() or weight_SOJ.device.type != "cpu" or not weight_SOJ.numel():
        return False
    if weight_SOJ.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_SOJ.dtype == torch.float32


def _grouped_product_fits(rows_NJ: torch.Tensor, weight_SOJ: torch.Tensor) -> bool:
    """Whether the CUDA kernel takes these: some rows, BF16, and sizes that fit its 16-byte accesses."""
    aligned = all(size * rows_NJ.element_size() % 16 == 0 for size in weight_SOJ.shape[1:])
    return rows_NJ.shape[0] > 0 and rows_NJ.dtype == weight_SOJ.dtype == torch.bfloat16 and aligned
