"""Counts of engines as recorded loads: which layers are MoE layers, and physical experts summed per logical one.

Shapes: W moments in time order, H layers as the engine has them, E logical experts, P physical experts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.routing.recorded_load import RecordedLoad


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
