"""A checkpoint of quantised weights as one of plain weights: each matrix is widened when it is read, never all.

The names of plain weights appear in place of their parts (`weight_packed`, `weight_scale_inv`, `qweight` ...), so that
inventory and loading know nothing of formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wingspan.runtime.model.architecture import read_config
from wingspan.runtime.model.checkpoint import Checkpoint
from wingspan.runtime.model.quantised import settings_said
from wingspan.runtime.model.quantised_parts import Made, made_of

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

_VALUES_AT_ONCE = 1 << 16
"""Values that are widened together: what stands between parts and BF16 is several times as large, and stays in a
core's cache."""


@dataclass(frozen=True)
class Widened:
    """A plain tensor that is made of its parts when it is indexed, in the manner of a safetensors slice.

    Args:
        made: what it is made of, and how.
        on_disk: slices of its parts, by the ends of their names.
    """

    made: Made
    on_disk: Mapping[str, Any]

    def get_shape(self) -> list[int]:
        """Shape of the plain tensor."""
        return list(self.made.shape)

    def get_dtype(self) -> str:
        """Widened to BF16, in safetensors' notation."""
        return "BF16"

    def __getitem__(self, index: Any) -> torch.Tensor:
        """All of it, or some experts of a fused tensor, of whose parts no others are read; some outputs at a time."""
        if len(self.made.shape) < 3:
            return self._widened(None)[index]
        return self._widened(slice(None) if index is ... else index)

    def _widened(self, experts: slice | None) -> torch.Tensor:
        shape, axis = list(self.made.shape), self.made.outputs_axis
        if experts is not None:
            shape[0] = len(range(shape[0])[experts])
        plain = torch.empty(shape, dtype=torch.bfloat16)
        step = self._outputs_at_once()
        for begin in range(0, shape[axis], step):
            end = min(begin + step, shape[axis])
            some = self.made.read(partial(self._part, experts, begin, end))
            plain.narrow(axis, begin, end - begin).copy_(some)
        return plain

    def _outputs_at_once(self) -> int:
        """So many that every part can be cut there."""
        inputs = self.made.shape[-3 - self.made.outputs_axis]
        whole = math.lcm(*(cut[1] for cut in self.made.parts.values() if cut))
        return -(-_VALUES_AT_ONCE // (inputs * whole)) * whole

    def _part(self, experts: slice | None, begin: int, end: int, name: str) -> torch.Tensor:
        """What a part has of some outputs of some experts."""
        source, cut = self.on_disk[name], self.made.parts[name]
        shape = source.get_shape()
        index = [slice(None)] * len(shape)
        if experts is not None and shape[:1] == [self.made.shape[0]]:
            index[0] = experts
        if cut is not None:
            index[cut[0]] = slice(begin // cut[1], -(-end // cut[1]))
        found: torch.Tensor = source[tuple(index)] if index else source[...]
        return found


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
                    for end in made.parts
                    if made.stem + end in self._on_disk
                }
                for end in parts:
                    self._slices.pop(made.stem + end, None)
                self._slices[made.name] = Widened(made, parts)
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
