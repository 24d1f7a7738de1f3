"""Load that an engine recorded: tokens per expert, without what each token chose.

Shapes: W moments in time order, L MoE layers, E logical experts, P physical experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.writing import write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class RecordedLoad:
    """Tokens per expert over time.

    Args:
        load_WLE: int64 (moments, MoE layers, logical experts).
        moe_layers: numbers of these layers in the model.
        source: where it comes from, in words.
    """

    load_WLE: NDArray[np.int64]
    moe_layers: tuple[int, ...]
    source: str

    @property
    def load_LE(self) -> NDArray[np.int64]:
        """The load summed over all moments: (L, E)."""
        total: NDArray[np.int64] = self.load_WLE.sum(axis=0)
        return total

    def pooled(self, windows: int) -> RecordedLoad:
        """Sum neighbouring moments into at most `windows` windows."""
        pieces = np.array_split(self.load_WLE, min(windows, len(self.load_WLE)))
        return RecordedLoad(np.stack([p.sum(axis=0) for p in pieces]), self.moe_layers, self.source)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/interop.md)."""
        return {
            "schema": "wingspan.recorded_load",
            "version": SCHEMA_VERSION,
            "source": self.source,
            "moe_layers": list(self.moe_layers),
            "load": self.load_WLE.tolist(),
        }


def read_load(path: Path) -> RecordedLoad:
    """Read the JSON form back; raises `InputError` where the file is none."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != "wingspan.recorded_load":
        raise InputError(f"{path}: not a recorded load; `wingspan import` writes one")
    if data.get("version") != SCHEMA_VERSION:
        raise InputError(f"{path}: version {data.get('version')}; this Wingspan reads {SCHEMA_VERSION}")
    try:
        load = np.asarray(data["load"], dtype=np.int64)
        layers, source = tuple(int(n) for n in data["moe_layers"]), str(data["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: lacks or garbles {error}") from None
    if load.ndim != 3 or load.shape[1] != len(layers) or load.size == 0 or load.min() < 0:
        raise InputError(f"{path}: expected counts of 0 or more as moments x {len(layers)} layers x experts")
    return RecordedLoad(load, layers, source)


def write_load(load: RecordedLoad, path: Path) -> None:
    """Write the JSON form."""
    write_json(path, load.to_dict())


def only_used_layers(
    load_WHE: NDArray[np.int64], moe_layers: tuple[int, ...] | None, source: str
) -> RecordedLoad:
    """Keep the MoE layers: those named, else those with any token; raises `InputError` where there is none."""
    used = tuple(np.flatnonzero(load_WHE.sum(axis=(0, 2))).tolist()) if moe_layers is None else moe_layers
    if not used:
        raise InputError(f"{source}: no layer counted any token")
    if max(used) >= load_WHE.shape[1]:
        raise InputError(f"{source}: MoE layer {max(used)} is asked for, it has {load_WHE.shape[1]}")
    return RecordedLoad(load_WHE[:, list(used)], used, source)


def logical_load(
    physical_WHP: NDArray[np.int64], map_HP: NDArray[np.int64], experts: int
) -> NDArray[np.int64]:
    """Counts per physical expert summed per logical one: (W, H, E)."""
    moments, layers, _ = physical_WHP.shape
    logical_WHE = np.zeros((moments, layers, experts), dtype=np.int64)
    layer_H1 = np.arange(layers)[:, None]
    for moment in range(moments):
        np.add.at(logical_WHE[moment], (layer_H1, map_HP), physical_WHP[moment])
    return logical_WHE
