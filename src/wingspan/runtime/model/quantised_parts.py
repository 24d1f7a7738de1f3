"""Which parts of a checkpoint are one quantised weight, and how the plain one is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wingspan.errors import InputError
from wingspan.runtime.model import formats

Part = Callable[[str], torch.Tensor]
Read = Callable[[Part], torch.Tensor]
"""Makes the plain tensor of its parts, which it asks for by the ends of their names."""


Cut = tuple[int, int] | None
"""The axis along which a part follows the weight's outputs, and outputs per index; None: it is of all outputs."""
_EACH: Cut = (-2, 1)


@dataclass(frozen=True)
class Made:
    """A plain tensor that can be made, also some of its outputs alone.

    Args:
        stem: what the names of its parts begin with.
        end: what its own name has after that.
        shape: its own.
        parts: how each is cut by outputs, by the ends of their names; those that may be missing are among them.
        read: makes it.
        outputs_axis: of its shape, from the end.
    """

    stem: str
    end: str
    shape: tuple[int, ...]
    parts: Mapping[str, Cut]
    read: Read
    outputs_axis: int = -2

    @property
    def name(self) -> str:
        """The name of the plain tensor."""
        return self.stem + self.end


def made_of(key: str, on_disk: Mapping[str, Any], said: Mapping[str, Any], folder: Path) -> Made | None:
    """The plain tensor that `key` is the telling part of; None where it is none's.

    Args:
        key: the name of a tensor.
        on_disk: the slices of all, by their names.
        said: what the configuration says of quantised weights.
        folder: named in errors.

    Raises:
        InputError: another part is missing, or has another shape than its format gives it.
    """
    for end, make in _FORMATS.items():
        if key.endswith(end):
            return make(_Stem(key.removesuffix(end), on_disk, said, folder))
    return None


@dataclass(frozen=True)
class _Stem:
    """A weight's name before the ends of its parts, and where to look."""

    stem: str
    on_disk: Mapping[str, Any]
    said: Mapping[str, Any]
    folder: Path

    def has(self, end: str) -> bool:
        return self.stem + end in self.on_disk

    def shape(self, end: str) -> tuple[int, ...]:
        if not self.has(end):
            raise InputError(
                f"{self.folder}: {self.stem}{end} is missing, a part of a quantised weight; copy it too"
            )
        return tuple(self.on_disk[self.stem + end].get_shape())

    def matrix(self, end: str) -> tuple[int, int]:
        shape = self.shape(end)
        if len(shape) != 2:
            raise InputError(
                f"{self.folder}: {self.stem}{end} has shape {list(shape)}; a quantised weight has two axes"
            )
        return shape[0], shape[1]

    def dtype(self, end: str) -> str:
        return str(self.on_disk[self.stem + end].get_dtype())

    def bits(self) -> int:
        bits = self.said.get("bits", self.said.get("w_bit", self.said.get("num_bits", 4)))
        if bits not in (2, 4, 8):
            raise InputError(f"{self.folder}: weights of {bits!r} bits are not read; 2, 4 and 8 are")
        return int(bits)


def _of_scale_inv(of: _Stem) -> Made | None:
    """FP8 in blocks: DeepSeek's, whose last blocks may be cut off."""
    if not of.has(""):
        return None
    block = of.said.get("weight_block_size")
    whole = isinstance(block, list) and len(block) == 2 and all(type(size) is int for size in block)
    return _scaled(of, "", "_scale_inv", block if whole else None)


def _of_scale(of: _Stem) -> Made | None:
    """FP8 or INT8 per tensor, output or block (MXFP8: 32 inputs), or ModelOpt's NVFP4, which has a second scale."""
    if not of.has("weight") or of.dtype("weight") not in ("F8_E4M3", "F8_E5M2", "I8", "U8"):
        return None
    if of.dtype("weight") != "U8":
        return _scaled(of, "weight", "weight_scale", None)
    *before, half = of.shape("weight")
    of.shape("weight_scale_2")
    return Made(
        of.stem,
        "weight",
        (*before, 2 * half),
        {"weight": _EACH, "weight_scale": _EACH, "weight_scale_2": None},
        lambda part: formats.from_nvfp4(part("weight"), part("weight_scale"), part("weight_scale_2")),
    )


def _scaled(of: _Stem, end: str, scale_end: str, block: list[int] | None) -> Made:
    """One scale, one per output, or one per block of a size that is said or follows from the shapes."""
    shape, scale = of.shape(end), of.shape(scale_end)
    cut: Cut = None
    if len(shape) > 1 and math.prod(scale) == 1:
        sizes = (shape[-2], shape[-1])
    elif len(shape) == 2 and scale == shape[:1]:
        sizes, cut = (1, shape[-1]), (0, 1)
    elif len(shape) == len(scale) > 1:
        rows, columns = (-(-shape[axis] // max(1, scale[axis])) for axis in (-2, -1))
        sizes = (block[0], block[1]) if block else (rows, columns)
        blocks = [size > 0 and -(-shape[axis] // size) for axis, size in zip((-2, -1), sizes, strict=True)]
        if blocks != list(scale[-2:]):
            raise InputError(
                f"{of.folder}: {of.stem}{scale_end} has shape {list(scale)}; blocks of {sizes[0]} x {sizes[1]} are "
                f"others in a weight of shape {list(shape)}: weight_block_size and the weights must belong together"
            )
        cut = None if scale[-2] == 1 else (-2, sizes[0])
    else:
        raise InputError(
            f"{of.folder}: {of.stem}{scale_end} has shape {list(scale)}; the scales of a weight of shape "
            f"{list(shape)} are one, one per output or one per block"
        )

    def read(part: Part) -> torch.Tensor:
        scales = part(scale_end)
        return formats.block_scaled(part(end), scales if scales.ndim > 1 else scales.reshape(-1, 1), sizes)

    return Made(of.stem, end, shape, {end: _EACH, scale_end: cut}, read)


def _of_packed(of: _Stem) -> Made:
    """compressed-tensors: integers in 32 bits, or NVFP4 in bytes, whose scale for all divides."""
    if of.dtype("weight_packed") == "U8":
        return _of_packed_nvfp4(of)
    bits, (outputs, words) = of.bits(), of.matrix("weight_packed")
    inputs = words * 32 // bits
    if of.has("weight_shape"):
        outputs, inputs = (int(n) for n in of.on_disk[of.stem + "weight_shape"][...])
    of.matrix("weight_scale")

    def read(part: Part) -> torch.Tensor:
        zero = part("weight_zero_point") if of.has("weight_zero_point") else None
        return formats.from_packed(part("weight_packed"), part("weight_scale"), zero, bits, inputs)

    parts = {
        "weight_packed": _EACH, "weight_scale": _EACH, "weight_zero_point": (0, 32 // bits), "weight_shape": None,
    }  # fmt: skip
    return Made(of.stem, "weight", (outputs, inputs), parts, read)


def _of_packed_nvfp4(of: _Stem) -> Made:
    *before, half = of.shape("weight_packed")
    for end in ("weight_scale", "weight_global_scale"):
        of.shape(end)

    def read(part: Part) -> torch.Tensor:
        whole = 1 / part("weight_global_scale").float()
        return formats.from_nvfp4(part("weight_packed"), part("weight_scale"), whole)

    parts = {"weight_packed": _EACH, "weight_scale": _EACH, "weight_global_scale": None}
    return Made(of.stem, "weight", (*before, 2 * half), parts, read)


def _of_blocks(of: _Stem) -> Made:
    """MXFP4 of gpt-oss: a fused tensor of all experts."""
    shape = of.shape("_blocks")
    if len(shape) < 3:
        raise InputError(
            f"{of.folder}: {of.stem}_blocks has shape {list(shape)}; quantised as MXFP4 it has outputs, groups, bytes"
        )
    *before, outputs, groups, half = shape
    of.shape("_scales")
    return Made(
        of.stem,
        "",
        (*before, groups * half * 2, outputs),
        {"_blocks": (-3, 1), "_scales": _EACH},
        lambda part: formats.from_mxfp4(part("_blocks"), part("_scales")),
        outputs_axis=-1,
    )


def _of_qweight(of: _Stem) -> Made:
    """GPTQ or AWQ, whose names are the same: AWQ packs along the outputs."""
    bits, (rows, columns) = of.bits(), of.matrix("qweight")
    for end in ("qzeros", "scales"):
        of.matrix(end)
    awq = str(of.said.get("quant_method", "")).lower() == "awq"
    shape = (columns * 32 // bits, rows) if awq else (columns, rows * 32 // bits)
    offset = 0 if of.said.get("checkpoint_format") == "gptq_v2" else 1

    def read(part: Part) -> torch.Tensor:
        weight, zeros, scales = part("qweight"), part("qzeros"), part("scales")
        if awq:
            return formats.from_awq(weight, zeros, scales, bits=bits)
        group = part("g_idx") if of.has("g_idx") else None
        return formats.from_gptq(weight, zeros, scales, group, bits=bits, zero_offset=offset)

    packed: Cut = (1, 32 // bits)
    parts = {"qweight": packed if awq else (1, 1), "qzeros": packed, "scales": (1, 1), "g_idx": None}
    return Made(of.stem, "weight", shape, parts, read)


_FORMATS: dict[str, Callable[[_Stem], Made | None]] = {
    "_scale_inv": _of_scale_inv,
    "weight_scale": _of_scale,
    "weight_packed": _of_packed,
    "_blocks": _of_blocks,
    "qweight": _of_qweight,
}
"""What the end of a part's name tells of its format."""
