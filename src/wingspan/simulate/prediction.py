"""Everything that a predicted step consists of.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.layer import LayerCost
from wingspan.deployment import Deployment
from wingspan.schedule.result import Operation
from wingspan.simulate.timeline import Timeline
from wingspan.specs.cluster import Cluster
from wingspan.specs.placement import Placement

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """One step before it is summed up.

    Args:
        deployment: what was predicted.
        cluster: as much of its cluster as the ranks fill.
        placement: of every MoE layer.
        timeline: when each task ran.
        rows_LRS: rows that each slot computes.
        load_LE: tokens per expert.
        arrived_LR: rows that reach each rank in a layer.
        moe: what the MoE layers' dispatches, experts and combines send and cost.
        engine_seconds: of each task of these operations, the first so many are what the engine adds.
        flops_R, moved_bytes_R: arithmetic and memory traffic of each rank's whole step.
    """

    deployment: Deployment
    cluster: Cluster
    placement: Placement
    timeline: Timeline
    rows_LRS: Array
    load_LE: Array
    arrived_LR: Array
    moe: LayerCost
    engine_seconds: dict[Operation, float]
    flops_R: Array
    moved_bytes_R: Array
