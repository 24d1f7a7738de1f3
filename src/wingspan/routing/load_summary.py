"""What a load says: imbalance, hottest and idle experts of each layer, and how it drifts.

Shapes: W moments, L MoE layers, E logical experts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.routing.load import imbalance_per_layer
from wingspan.routing.recorded_load import RecordedLoad


@dataclass(frozen=True)
class LoadFigures:
    """One layer's.

    Attributes:
        layer: its number in the model where the file says it, else in the file.
        imbalance: hottest expert over the mean one.
        hottest_expert: its number.
        hottest_share: of the layer's choices.
        idle_experts: that nobody picked.
        drift: mean over moments of the share of load that is on other experts than in the moment before; None for one.
    """

    layer: int
    imbalance: float
    hottest_expert: int
    hottest_share: float
    idle_experts: int
    drift: float | None


@dataclass(frozen=True)
class LoadSummary:
    """All of a load's figures."""

    source: str
    moments: int
    num_experts: int
    choices: float
    imbalance: float
    layers: list[LoadFigures]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def summarise_load(load: RecordedLoad) -> LoadSummary:
    """The figures of a load; layers without any token count as balanced."""
    load_LE = load.load_LE.astype(np.float64)
    ratio_L, total_L = imbalance_per_layer(load_LE), np.maximum(load_LE.sum(axis=1), 1e-300)
    numbers = load.moe_layers or tuple(range(len(load_LE)))
    drift_L = _drift(load.load_WLE)
    layers = [
        LoadFigures(
            number,
            float(ratio_L[n]),
            int(load_LE[n].argmax()),
            float(load_LE[n].max() / total_L[n]),
            int((load_LE[n] == 0).sum()),
            None if drift_L is None else float(drift_L[n]),
        )
        for n, number in enumerate(numbers)
    ]
    moments, _, experts = load.load_WLE.shape
    return LoadSummary(load.source, moments, experts, float(load_LE.sum()), float(ratio_L.mean()), layers)


def _drift(load_WLE: NDArray[Any]) -> NDArray[np.float64] | None:
    if len(load_WLE) < 2:
        return None
    share_WLE = load_WLE / np.maximum(load_WLE.sum(axis=2, keepdims=True), 1e-300)
    result: NDArray[np.float64] = np.abs(np.diff(share_WLE, axis=0)).sum(axis=2).mean(axis=0) / 2
    return result
