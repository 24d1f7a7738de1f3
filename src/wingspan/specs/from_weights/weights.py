"""Parameters as they are before quantising, from the tensors that hold them packed, with scales beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from wingspan.specs.precision import Precision
from wingspan.specs.tensors import Tensor

_PLAIN = {"F32": Precision.FP32, "F16": Precision.FP16, "BF16": Precision.BF16, "I8": Precision.INT8}
_SCALES = ("_scale_inv", "_scale", "_scale_2", "_scales", "_global_scale", "_shape", "_zero_point", "_g_idx")
_BESIDE_PACKED = ("scales", "qzeros", "g_idx")
_OF_INPUTS = ("input_scale", "input_global_scale", "activation_scale", "k_scale", "v_scale", "q_scale")
_NVFP4_GROUP, _MXFP4_GROUP = 16, 32
"""Values that share a scale (NVIDIA, "Introducing NVFP4"; OCP Microscaling Formats v1.0, section 5.2)."""


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Args:
        name: without what only a packed one has.
        shape: of the unpacked values.
        precision: in which they are stored.
    """

    name: str
    shape: tuple[int, ...]
    precision: Precision

    @property
    def values(self) -> int:
        """How many."""
        return prod(self.shape)

    @property
    def module(self) -> str:
        """The last name but `weight` and `bias`: `q_proj`."""
        names = self.name.split(".")
        return names[-2] if names[-1] in ("weight", "bias") and len(names) > 1 else names[-1]


def weights_of(tensors: Mapping[str, Tensor], bits: int) -> Iterator[Weight]:
    """Every parameter; scales, zero points and the order of groups are none.

    Args:
        tensors: of the checkpoint.
        bits: of integers that lie packed in 32.
    """
    for name, tensor in tensors.items():
        if not _is_beside(name, tensors):
            yield _weight(name, tensor, tensors, bits)


def _is_beside(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether it only says how another is stored."""
    stem, dot, last = name.rpartition(".")
    within = f"{stem}{dot}"
    if last in _BESIDE_PACKED:
        return f"{within}qweight" in tensors
    if last in _OF_INPUTS:
        return tensors[name].values <= 1 or f"{within}weight_scale" in tensors
    for ending in _SCALES:
        base = f"{within}{last.removesuffix(ending)}"
        if last.endswith(ending) and any(base + more in tensors for more in ("", "_packed", "_blocks")):
            return True
    return last == "scale" and f"{within}weight" in tensors and tensors[name].dtype.startswith("F8")


def _weight(name: str, tensor: Tensor, tensors: Mapping[str, Tensor], bits: int) -> Weight:
    shape, last = tensor.shape, name.rpartition(".")[2]
    if last == "qweight":
        return _integers(name, shape, tensors, bits)
    if last.endswith("_blocks") and len(shape) > 2:
        *before, outputs, groups, size = shape
        unpacked = (*before, groups * size * 2, outputs)
        return Weight(name.removesuffix("_blocks"), unpacked, Precision.MXFP4)
    if last.endswith("_packed"):
        stem = name.removesuffix("_packed")
        scale = tensors.get(f"{stem}_scale")
        per_value = 2 if tensor.dtype == "U8" else 32 // bits
        unpacked = (*shape[:-1], shape[-1] * per_value)
        group = unpacked[-1] // scale.shape[-1] if scale and scale.shape else 0
        if tensor.dtype == "U8":
            return Weight(stem, unpacked, _four_bits(group))
        return Weight(stem, unpacked, _integer(bits, group))
    scale = next(
        (tensors[n] for n in (f"{name}_scale", f"{name.removesuffix('weight')}scale") if n in tensors), None
    )
    if tensor.dtype in ("U8", "I8") and scale and scale.shape and shape:
        group = 2 * shape[-1] // max(1, scale.shape[-1])
        if group in (_NVFP4_GROUP, _MXFP4_GROUP):
            return Weight(name, (*shape[:-1], 2 * shape[-1]), _four_bits(group))
    stored = Precision.FP8 if tensor.dtype.startswith("F8") else _PLAIN.get(tensor.dtype, Precision.BF16)
    return Weight(name, shape, stored)


def _integers(name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor], bits: int) -> Weight:
    """GPTQ packs the inputs, AWQ the outputs: the scales, one per group and output, tell which."""
    scales = tensors.get(f"{name.removesuffix('qweight')}scales")
    inputs, outputs, packed = shape[0], shape[1], 32 // bits
    if scales is None or scales.shape[1] == outputs:
        inputs *= packed
    else:
        outputs = scales.shape[1]
    group = inputs // scales.shape[0] if scales else 0
    return Weight(f"{name.removesuffix('qweight')}weight", (outputs, inputs), _integer(bits, group))


def _integer(bits: int, group: int) -> Precision:
    if bits == 8:
        return Precision.INT8
    return Precision.INT4_G32 if group == 32 else Precision.INT4


def _four_bits(group: int) -> Precision:
    return Precision.NVFP4 if group == _NVFP4_GROUP else Precision.MXFP4
