"""How long one rank of a deployment computes, operation by operation: for a run whose compute is paced.

Shapes: L MoE layers, S slots per rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wingspan.cost.layer import LayerSizes, price_experts
from wingspan.deployment import Deployment
from wingspan.schedule.result import Operation
from wingspan.simulate.work import Cost, Work


class ModelledPace:
    """The cost model's durations for one rank.

    Args:
        deployment: as predicted; its cluster's GPU sets the pace.
        micro_batches: into how many its schedule cuts the step.
        rank: whose.
    """

    def __init__(self, deployment: Deployment, micro_batches: int, rank: int) -> None:
        self._order = deployment.model.order
        self._cluster = deployment.used_cluster
        self._sizes = LayerSizes.of(
            deployment.model,
            deployment.precisions,
            deployment.workload.phase,
            dispatcher=deployment.sending,
        )
        self._work = Work(deployment, self._cluster, micro_batches)
        self._rank = rank
        work = self._work
        self._alike = {
            Operation.EMBED: self._own(work.embed()),
            Operation.GATE: self._own(work.gate()),
            Operation.SHARED_EXPERT: self._own(work.shared_expert()),
            Operation.HEAD: self._own(work.head()),
        }
        self._of_kind = [
            {operation: self._own(cost) for operation, cost in work.of_kind(kind).items()}
            for kind in deployment.model.kinds
        ]

    def seconds(self, operation: Operation, layer: int | None) -> float:
        """One operation of one micro-batch in layer `layer`."""
        if layer is not None and operation in (Operation.ATTENTION, Operation.DENSE):
            return self._of_kind[self._order[layer]].get(operation, 0.0)
        return self._alike[operation]

    def experts_seconds(self, layer: int, rows_S: Sequence[int]) -> float:  # noqa: ARG002 - all layers' experts cost alike
        """This rank's experts, for the rows that each of its slots got."""
        rows_PLRS = np.array(rows_S, dtype=np.float64)[None, None, None]
        if not rows_PLRS.size:
            return 0.0
        return float(price_experts(self._cluster, self._sizes, rows_PLRS, rows_PLRS.sum(axis=-1)).max())

    def _own(self, cost: Cost) -> float:
        seconds_R = np.atleast_1d(cost.seconds)
        return float(seconds_R[self._rank] if len(seconds_R) > 1 else seconds_R[0])
