"""A checkpoint of quantised weights as one of plain weights: each matrix is widened when it is read, never all.

The names of plain weights appear in place of their parts (`weight_packed`, `weight_scale_inv`, `qweight` ...), so that
inventory and loading know nothing of formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wingspan.runtime.model.architecture import read_config
from wingspan.runtime.model.checkpoint import Checkpoint
from wingspan.runtime.model.quantised import settings_said
from wingspan.runtime.model.quantised_parts import Read, made_of

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


@dataclass(frozen=True)
class Widened:
    """A plain tensor that is made of its parts when it is indexed, in the manner of a safetensors slice.

    Args:
        shape: of the plain tensor.
        parts: slices on disk, by the ends of their names.
        read: makes the tensor of its parts.
    """

    shape: tuple[int, ...]
    parts: Mapping[str, Any]
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
        for key in self._on_disk:
            if made := made_of(key, self._on_disk, said, folder):
                parts = {
                    end: self._on_disk[made.stem + end]
                    for end in made.ends
                    if made.stem + end in self._on_disk
                }
                for end in parts:
                    self._slices.pop(made.stem + end, None)
                self._slices[made.name] = Widened(made.shape, parts, made.read)
        if self.widened:
            for key in [k for k in self._slices if k.rpartition(".")[2] in _COMPANIONS]:
                del self._slices[key]

    @property
    def widened(self) -> list[str]:
        """Names of the plain tensors that are made of quantised parts."""
        return [key for key, found in self._slices.items() if isinstance(found, Widened)]

    def stored_dtypes(self) -> list[str]:
        """The dtype of every tensor on disk."""
        return [str(found.get_dtype()) for found in self._on_disk.values()]
