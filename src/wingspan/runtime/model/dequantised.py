"""A checkpoint of quantised weights as one of plain weights: each matrix is widened when it is read, never all.

The names of plain weights appear in place of their parts (`weight_packed`, `weight_scale_inv`, `qweight` ...), so that
inventory and loading know nothing of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wingspan.errors import InputError
from wingspan.runtime.model import formats
from wingspan.runtime.model.architecture import read_config
from wingspan.runtime.model.checkpoint import Checkpoint
from wingspan.runtime.model.quantised import settings_said

_COMPANIONS = (
    "input_scale",
    "input_global_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "weight_shape",
    "bias_scale",
)
"""Ends of names of what only quantised arithmetic uses: scales of activations and caches."""

Parts = Mapping[str, Any]
Read = Callable[[Callable[[str], torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Widened:
    """A plain tensor that is made of its parts when it is indexed, in the manner of a safetensors slice.

    Args:
        shape: of the plain tensor.
        parts: slices on disk, by the ends of their names.
        read: makes the tensor of its parts.
    """

    shape: tuple[int, ...]
    parts: Parts
    read: Read

    def get_shape(self) -> list[int]:
        """Shape of the plain tensor."""
        return list(self.shape)

    def get_dtype(self) -> str:
        """Widened to BF16, in safetensors' notation."""
        return "BF16"

    def __getitem__(self, index: Any) -> torch.Tensor:
        """All of it, or some experts of a fused tensor, of whose parts no others are read."""
        if len(self.shape) < 3 or index is ...:
            return self.read(lambda end: self.parts[end][...])[index]
        return self.read(
            lambda end: self.parts[end][index] if self.parts[end].get_shape() else self.parts[end][...]
        )


class DequantisedCheckpoint(Checkpoint):
    """A checkpoint whose quantised weights are read as plain ones.

    Raises:
        InputError: as `Checkpoint`, or a part of a quantised weight is missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        said = settings_said(folder, read_config(folder))
        self._on_disk = dict(self._slices)
        for key in list(self._on_disk):
            if plain := _plain(key, self._on_disk, said, folder):
                name, widened, used = plain
                for part in used:
                    self._slices.pop(part, None)
                self._slices[name] = widened
        if len(self._on_disk) != len(self._slices) or any(
            isinstance(s, Widened) for s in self._slices.values()
        ):
            for key in [k for k in self._slices if k.rpartition(".")[2] in _COMPANIONS]:
                del self._slices[key]

    @property
    def widened(self) -> list[str]:
        """Names of the plain tensors that are made of quantised parts."""
        return [key for key, found in self._slices.items() if isinstance(found, Widened)]

    def stored_dtypes(self) -> list[str]:
        """The dtype of every tensor on disk."""
        return [str(found.get_dtype()) for found in self._on_disk.values()]


def _plain(
    key: str, on_disk: Parts, said: Mapping[str, Any], folder: Path
) -> tuple[str, Widened, list[str]] | None:
    """The plain tensor whose first part `key` is: its name, how it is made, and the names of its parts."""
    for end, make in _FORMATS.items():
        if key.endswith(end):
            stem = key.removesuffix(end)
            found = make(_Stem(stem, on_disk, said, folder))
            if found is not None:
                name, shape, ends, read = found
                parts = {e: on_disk[stem + e] for e in ends if stem + e in on_disk}
                return name, Widened(shape, parts, read), [stem + e for e in parts]
    return None


Made = tuple[str, tuple[int, ...], tuple[str, ...], Read]


@dataclass(frozen=True)
class _Stem:
    """A weight's name before the ends of its parts, and where to look."""

    stem: str
    on_disk: Parts
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
    sizes = (int(block[0]), int(block[1])) if isinstance(block, list) and len(block) == 2 else None

    def read(part: Callable[[str], torch.Tensor]) -> torch.Tensor:
        weight, scale = part(""), part("_scale_inv")
        return (
            formats.scaled(weight, scale)
            if sizes is None or scale.ndim < 2
            else formats.block_scaled(weight, scale, sizes)
        )

    return of.stem, of.shape(""), ("", "_scale_inv"), read


def _of_scale(of: _Stem) -> Made | None:
    """FP8 or INT8 per tensor or per output, or ModelOpt's NVFP4, which has a second scale."""
    if not of.has("weight") or of.dtype("weight") not in ("F8_E4M3", "F8_E5M2", "I8", "U8"):
        return None
    if of.dtype("weight") != "U8":
        ends = ("weight", "weight_scale")
        return of.stem + "weight", of.shape("weight"), ends, lambda part: formats.scaled(*map(part, ends))
    *before, inputs = of.shape("weight")
    of.shape("weight_scale_2")
    ends = ("weight", "weight_scale", "weight_scale_2")
    shape = (*before, 2 * inputs)
    return of.stem + "weight", shape, ends, lambda part: formats.from_nvfp4(*map(part, ends))


def _of_packed(of: _Stem) -> Made:
    """compressed-tensors: integers in 32 bits, or NVFP4 in bytes, whose scale for all divides."""
    if of.dtype("weight_packed") == "U8":
        *before, inputs = of.shape("weight_packed")
        ends = ("weight_packed", "weight_scale", "weight_global_scale")
        of.shape(ends[2])

        def widen(part: Callable[[str], torch.Tensor]) -> torch.Tensor:
            return formats.from_nvfp4(part(ends[0]), part(ends[1]), 1 / part(ends[2]).float())

        return of.stem + "weight", (*before, 2 * inputs), ends, widen
    bits, (outputs, words) = of.bits(), of.matrix("weight_packed")
    inputs = words * 32 // bits
    if of.has("weight_shape"):
        outputs, inputs = (int(n) for n in of.on_disk[of.stem + "weight_shape"][...])
    of.matrix("weight_scale")

    def read(part: Callable[[str], torch.Tensor]) -> torch.Tensor:
        zero = part("weight_zero_point") if of.has("weight_zero_point") else None
        return formats.from_packed(part("weight_packed"), part("weight_scale"), zero, bits, inputs)

    ends = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
    return of.stem + "weight", (outputs, inputs), ends, read


def _of_blocks(of: _Stem) -> Made:
    """MXFP4 of gpt-oss: a fused tensor of all experts."""
    shape = of.shape("_blocks")
    if len(shape) < 3:
        raise InputError(
            f"{of.folder}: {of.stem}_blocks has shape {list(shape)}; quantised as MXFP4 it has outputs, groups, bytes"
        )
    *before, outputs, groups, half = shape
    of.shape("_scales")
    ends = ("_blocks", "_scales")
    return (
        of.stem,
        (*before, groups * half * 2, outputs),
        ends,
        lambda part: formats.from_mxfp4(*map(part, ends)),
    )


def _of_qweight(of: _Stem) -> Made:
    """GPTQ or AWQ, whose names are the same: AWQ packs along the outputs."""
    bits, (rows, columns) = of.bits(), of.matrix("qweight")
    for end in ("qzeros", "scales"):
        of.matrix(end)
    ends = ("qweight", "qzeros", "scales", "g_idx")
    if str(of.said.get("quant_method", "")).lower() == "awq":
        shape = (columns * 32 // bits, rows)
        return of.stem + "weight", shape, ends, lambda part: formats.from_awq(*map(part, ends[:3]), bits)
    offset = 0 if of.said.get("checkpoint_format") == "gptq_v2" else 1

    def read(part: Callable[[str], torch.Tensor]) -> torch.Tensor:
        group = part("g_idx") if of.has("g_idx") else None
        return formats.from_gptq(*map(part, ends[:3]), group, bits, offset)

    return of.stem + "weight", (columns, rows * 32 // bits), ends, read


_FORMATS: dict[str, Callable[[_Stem], Made | None]] = {
    "_scale_inv": _of_scale_inv,
    "weight_scale": _of_scale,
    "weight_packed": _of_packed,
    "_blocks": _of_blocks,
    "qweight": _of_qweight,
}
"""What the end of a part's name tells of its format."""
