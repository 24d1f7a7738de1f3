"""One linear layer per slot, over rows sorted by slot: the matrix products of this rank's experts.

On the CPU the matrices can be packed once into the layout that oneDNN computes on, which plain `F.linear` makes
anew at every call. On CUDA several slots take one grouped product.

Shapes: N rows, S slots, O and J the output and input size of one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from wingspan.runtime.dispatch.counts import Counts
from wingspan.runtime.model.experts_table import Matrices, owner_of
from wingspan.runtime.ranks.side_stream import tensors_in

_ROWS_AT_ONCE = 512
"""Rows of a packed product that are copied elsewhere while they are in the cache; as fast as all at once."""


@dataclass(frozen=True)
class SlotWeights:
    """One slot's weights, ready to be held by a `SlotLinear`."""

    matrix: torch.Tensor
    """(O, J), or packed."""
    bias_O: torch.Tensor | None


class SlotLinear:
    """One linear layer of an experts module, one matrix per slot.

    Args:
        module: a transformers experts module.
        matrices: which of its parameters, and how it stores them.
    """

    def __init__(self, module: nn.Module, matrices: Matrices) -> None:
        self._matrices = matrices
        self._owner, self._name = owner_of(module, matrices.name)
        self._bias = None if matrices.bias is None else owner_of(module, matrices.bias)
        self._rows = None if matrices.rows is None else matrices.rows(module)
        self._packed: list[torch.Tensor] | None = None
        self._shape_OJ: torch.Size = self.weight_SOJ.shape[1:]

    @property
    def weight_SOJ(self) -> torch.Tensor:
        """The stacked matrices, output size first (a view where the module stores them transposed)."""
        weight: torch.Tensor = self._parameter
        if self._packed is not None:
            dense = [matrix_OJ.to_dense() for matrix_OJ in self._packed]
            return torch.stack(dense) if dense else weight.new_empty((0, *self._shape_OJ))
        return self._view_SOJ(weight)

    @property
    def bias_SO(self) -> torch.Tensor | None:
        """The stacked biases, where the architecture has them."""
        return None if self._bias is None else getattr(*self._bias)

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
        self._packed = [_packed(w) for w in weight_SOJ]
        self._parameter.data = self._parameter.data.new_empty(0)

    def make_room(self, slots: int) -> None:
        """Have room for so many slots, which `put` fills; what was held is gone."""
        if self._packed is None:
            data = self._parameter.data
            self._parameter.data = data.new_empty((slots * (self._rows or 1), *data.shape[1:]))
        else:
            self._packed = []
        if self.bias_SO is not None:
            self.bias_SO.data = self.bias_SO.data.new_empty((slots, self._shape_OJ[0]))

    def put(self, slot: int, expert: dict[str, torch.Tensor]) -> None:
        """Fill a slot, one after another where matrices are packed.

        Args:
            slot: its number.
            expert: one expert's part of each parameter, as the module stores it; this layer's are taken out, so that
                they are freed before the next.
        """
        name, bias = self._matrices.name, self._matrices.bias
        if self._packed is None:
            rows = self._rows or 1
            self._parameter.data[slot * rows : (slot + 1) * rows].copy_(expert.pop(name))
        else:
            matrix_OJ = self._view_SOJ(expert.pop(name))[0].contiguous()
            self._packed.append(_packed(matrix_OJ))
        if bias is not None and self.bias_SO is not None:
            self.bias_SO.data[slot : slot + 1].copy_(expert.pop(bias))

    def _view_SOJ(self, stored: torch.Tensor) -> torch.Tensor:
        """Matrices as the module stores them, output size first."""
        if self._rows is not None:
            stored = stored.view(len(stored) // self._rows, self._rows, *stored.shape[1:])
        return stored.transpose(1, 2) if self._matrices.transposed else stored

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot's matrix and bias, whether or not this rank has a slot."""
        outputs, inputs = self._shape_OJ
        return (outputs * inputs + (0 if self.bias_SO is None else outputs)) * self._dtype.itemsize

    @property
    def input_bytes(self) -> int:
        """Bytes of a row that it takes."""
        return self._shape_OJ[1] * self._dtype.itemsize

    def read(self, slot: int) -> torch.Tensor:
        """One slot's matrix (O, J) and bias, one after another, as `slot_bytes` bytes in the CPU's memory."""
        matrix_OJ = self.weight_SOJ[slot] if self._packed is None else self._packed[slot].to_dense()
        parts = [matrix_OJ.detach().reshape(-1)]
        if self.bias_SO is not None:
            parts.append(self.bias_SO[slot].detach())
        return _on_host(torch.cat(parts)).view(torch.uint8)

    def prepare(self, raw: torch.Tensor) -> SlotWeights:
        """What `read` gave, on any rank, in the form that this layer computes on."""
        outputs, inputs = self._shape_OJ
        values = raw.view(self._dtype)
        if self.device.type == "cuda":
            values = values.pin_memory().to(self.device, non_blocking=True)
        matrix_OJ = values[: outputs * inputs].view(outputs, inputs)
        bias_O = None if self.bias_SO is None else values[outputs * inputs :]
        return SlotWeights(matrix_OJ if self._packed is None else _packed(matrix_OJ), bias_O)

    def replace(self, slots: Sequence[int | SlotWeights]) -> None:
        """Hold these slots from now on: present ones by their number, new ones from `prepare`; there may be none.

        The matrices that stay are not copied where they are packed; parameters that gradients reach cannot change.
        """
        held = [self._held(s) if isinstance(s, int) else s for s in slots]
        for tensor in tensors_in(held):
            # The thread that moves experts made them in a stream of its own.
            tensor.record_stream(torch.cuda.current_stream())
        if self._packed is not None:
            self._packed = [weights.matrix for weights in held]
        else:
            matrices_SOJ = self._stacked([w.matrix for w in held], self._shape_OJ)
            transposed = self._matrices.transposed
            stored = matrices_SOJ.transpose(1, 2).contiguous() if transposed else matrices_SOJ
            self._parameter.data = stored if self._rows is None else stored.flatten(0, 1)
        if self.bias_SO is not None:
            biases = [w.bias_O for w in held if w.bias_O is not None]
            self.bias_SO.data = self._stacked(biases, self._shape_OJ[:1])

    def _held(self, slot: int) -> SlotWeights:
        matrix = self.weight_SOJ[slot].detach() if self._packed is None else self._packed[slot]
        return SlotWeights(matrix, None if self.bias_SO is None else self.bias_SO[slot].detach())

    def _stacked(self, parts: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        return torch.stack(parts) if parts else self._parameter.data.new_empty((0, *shape))

    @property
    def _parameter(self) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self._owner, self._name)
        return parameter

    @property
    def device(self) -> torch.device:
        """Where the matrices are."""
        return self._parameter.device

    @property
    def _dtype(self) -> torch.dtype:
        return self._parameter.dtype

    def __call__(
        self, rows_NJ: torch.Tensor, counts_S: Sequence[int], out_NO: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Each row (N, J) through its slot's layer: (N, O); into `out_NO`, where it can and no gradient is kept."""
        if torch.is_grad_enabled():
            out_NO = None
        if self._packed is not None:
            return packed_by_slot(rows_NJ, counts_S, self._packed, self.bias_SO, out_NO)
        if len(counts_S) > 1 and _takes_grouped_product(rows_NJ, self.weight_SOJ):
            return grouped_linear(rows_NJ, counts_S, self.weight_SOJ, self.bias_SO)
        if out_NO is not None:
            return linear_into(out_NO, rows_NJ, counts_S, self.weight_SOJ, self.bias_SO)
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
        for s, start, end in _spans(counts_S, len(rows_NJ))
    ]
    return _joined(pieces) if pieces else F.linear(rows_NJ, weights[0], biases[0])


def linear_into(
    out_NO: torch.Tensor,
    rows_NJ: torch.Tensor,
    counts_S: Sequence[int],
    weight_SOJ: torch.Tensor,
    bias_SO: torch.Tensor | None,
) -> torch.Tensor:
    """`linear_by_slot` without gradients, written to `out_NO`."""
    for s, start, end in _spans(counts_S, len(rows_NJ)):
        place_NO, part_NJ, weight_JO = out_NO[start:end], rows_NJ[start:end], weight_SOJ[s].T
        if bias_SO is None:
            torch.mm(part_NJ, weight_JO, out=place_NO)
        else:
            torch.addmm(bias_SO[s], part_NJ, weight_JO, out=place_NO)
    return out_NO


def packed_by_slot(
    rows_NJ: torch.Tensor,
    counts_S: Sequence[int],
    packed: Sequence[torch.Tensor],
    bias_SO: torch.Tensor | None,
    out_NO: torch.Tensor | None = None,
) -> torch.Tensor:
    """`linear_by_slot` on matrices in oneDNN's own layout; no gradients."""

    def product(s: int, start: int, end: int) -> torch.Tensor:
        bias_O = None if bias_SO is None else bias_SO[s]
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows_NJ[start:end], packed[s], bias_O, "none", [], ""
        )
        return out

    if out_NO is not None:
        for s, start, end in _spans(counts_S, len(rows_NJ)):
            for begin in range(start, end, _ROWS_AT_ONCE):
                part = slice(begin, min(begin + _ROWS_AT_ONCE, end))
                out_NO[part] = product(s, part.start, part.stop)
        return out_NO
    pieces = [product(s, start, end) for s, start, end in _spans(counts_S, len(rows_NJ))]
    return _joined(pieces) if pieces else rows_NJ.new_empty((0, packed[0].shape[0]))


def grouped_linear(
    rows_NJ: torch.Tensor, counts_S: Sequence[int], weight_SOJ: torch.Tensor, bias_SO: torch.Tensor | None
) -> torch.Tensor:
    """One grouped matrix product over all slots: one kernel where there would be S small ones."""
    given = counts_S if isinstance(counts_S, Counts) else Counts(counts_S, rows_NJ.device)
    counts = given.tensor_S
    ends_S = counts.cumsum(0).to(torch.int32)
    out_NO = F.grouped_mm(rows_NJ, weight_SOJ.transpose(1, 2), offs=ends_S)
    if bias_SO is None:
        return out_NO
    return out_NO + bias_SO.repeat_interleave(counts, dim=0, output_size=rows_NJ.shape[0])


def _spans(counts_S: Sequence[int], rows: int) -> list[tuple[int, int, int]]:
    """(slot, first row, end) of every slot that has rows, of so many in all."""
    if len(counts_S) == 1:
        return [(0, 0, rows)] if rows else []
    bounds = [0]
    for count in counts_S:
        bounds.append(bounds[-1] + count)
    return [(s, start, end) for s, (start, end) in enumerate(pairwise(bounds)) if end > start]


def _on_host(values: torch.Tensor) -> torch.Tensor:
    """The values in the CPU's memory; from a GPU through pinned memory, holding up nobody but this thread."""
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return host


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _packed(matrix_OJ: torch.Tensor) -> torch.Tensor:
    packed_OJ: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix_OJ.contiguous())
    return packed_OJ


def _can_pack(weight_SOJ: torch.Tensor) -> bool:
    """Also without a slot: one may come while the model runs."""
    if not torch.backends.mkldnn.is_available() or weight_SOJ.device.type != "cpu":
        return False
    if not all(weight_SOJ.shape[1:]):
        return False
    if weight_SOJ.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_SOJ.dtype == torch.float32


def _takes_grouped_product(rows_NJ: torch.Tensor, weight_SOJ: torch.Tensor) -> bool:
    """Whether the CUDA kernel takes these: some rows, BF16, and sizes that fit its 16-byte accesses."""
    if not rows_NJ.is_cuda or not len(rows_NJ):
        return False
    aligned = all(size * rows_NJ.element_size() % 16 == 0 for size in weight_SOJ.shape[1:])
    return rows_NJ.dtype == weight_SOJ.dtype == torch.bfloat16 and aligned
