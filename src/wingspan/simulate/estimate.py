"""A step's time from few of its layers: what a search over thousands of deployments can afford.

The layers of a model repeat, so a dense one and three with experts stand for all: the same prediction, of a shorter
model, and every further layer takes what one more took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.deployment import Deployment
from wingspan.schedule.schedule import COMMUNICATION
from wingspan.simulate.step import predict
from wingspan.specs.placement import Placement
from wingspan.specs.workload import RecordedRouting

_MOE_LAYERS = 3


@dataclass(frozen=True)
class Estimate:
    """A whole step's seconds, and those in which the busiest rank computes."""

    step_seconds: float
    computing_seconds: float


class ShortModel:
    """A deployment's model, cut to few layers.

    Args:
        deployment: its model and work are kept; all else may vary between estimates.
    """

    def __init__(self, deployment: Deployment) -> None:
        model = deployment.model
        # The first of every kind, and some with experts: the very first of those has nothing before it to wait for.
        firsts = {model.order.index(kind) for kind in set(model.order)}
        kept = sorted({*firsts, *model.moe_layers[:_MOE_LAYERS]})
        self._whole = model
        self._model = model.with_layers(kept)
        self._moe_kept = [n for n, layer in enumerate(model.moe_layers) if layer in kept]

    def cut(self, deployment: Deployment) -> Deployment:
        """The deployment with the short model."""
        workload, placement = deployment.workload, deployment.placement
        if placement.slots is not None:
            placement = placement.model_copy(
                update={"slots": tuple(placement.slots[n] for n in self._moe_kept)}
            )
        if isinstance(workload.routing, RecordedRouting):
            loads = workload.routing.loads
            routing = workload.routing.model_copy(
                update={"loads": tuple(loads[n % len(loads)] for n in self._moe_kept)}
            )
            workload = workload.model_copy(update={"routing": routing})
        return deployment.model_copy(
            update={"model": self._model, "workload": workload, "placement": placement}
        )

    def placement(self, deployment: Deployment) -> Placement:
        """Place the experts of the short model."""
        return self.cut(deployment).build_placement()

    def repeated(self, placement: Placement) -> Placement:
        """A placement of the short model, repeated over all MoE layers: it holds as much as the whole one."""
        layers = np.arange(len(self._whole.moe_layers)) % placement.num_layers
        return Placement(placement.slots_LRS[layers], placement.num_experts)

    def estimate(self, deployment: Deployment, placement: Placement) -> Estimate:
        """The whole model's step.

        Args:
            deployment: of the whole model.
            placement: of the short one.
        """
        timeline = predict(self.cut(deployment), placement).timeline
        tasks = timeline.schedule.tasks
        ends = np.zeros(self._model.layers)
        for task, end in zip(tasks, timeline.ends_NR.max(axis=1), strict=True):
            if task.layer is not None:
                ends[task.layer] = max(ends[task.layer], end)
        lasts = np.diff(ends, prepend=0.0)
        more = sum(self._missing(kind) * self._mean(kind, lasts) for kind in set(self._model.order))
        step = timeline.step_seconds
        computing = [number for number, task in enumerate(tasks) if task.operation not in COMMUNICATION]
        busy_R = (timeline.ends_NR[computing] - timeline.starts_NR[computing]).sum(axis=0)
        return Estimate(step + more, (step + more) * float(busy_R.max()) / step)

    def _missing(self, kind: int) -> int:
        return self._whole.layers_of(kind) - self._model.layers_of(kind)

    def _mean(self, kind: int, seconds: NDArray[np.float64]) -> float:
        """The mean over the kept layers of a kind, without the first that has experts where there are others."""
        of_kind = [layer for layer, other in enumerate(self._model.order) if other == kind]
        later = [layer for layer in of_kind if layer != self._model.moe_layers[0]]
        return float(seconds[later or of_kind].mean())
