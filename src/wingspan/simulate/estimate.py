"""A step's time from few of its layers: what a search over thousands of deployments can afford.

The layers of a model repeat, so a dense one and three with experts stand for all: the same prediction, of a shorter
model, and every further layer takes what one more took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wingspan.deployment import Deployment
from wingspan.schedule.schedule import COMMUNICATION
from wingspan.simulate.step import predict
from wingspan.specs.model import HeadAttention, ModelSpec
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
        kept = sorted({*model.dense_layers[:1], *model.moe_layers[:_MOE_LAYERS]})
        self._whole = model
        self._model = _of_layers(model, kept)

    def cut(self, deployment: Deployment) -> Deployment:
        """The deployment with the short model."""
        workload, placement = deployment.workload, deployment.placement
        if placement.slots is not None:
            placement = placement.model_copy(update={"slots": placement.slots[:_MOE_LAYERS]})
        if isinstance(workload.routing, RecordedRouting):
            routing = workload.routing.model_copy(update={"loads": workload.routing.loads[:_MOE_LAYERS]})
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
        moe, dense = list(self._model.moe_layers), list(self._model.dense_layers)
        more = (len(self._whole.moe_layers) - len(moe)) * float(lasts[moe[1:] or moe].mean())
        if dense:
            more += (len(self._whole.dense_layers) - len(dense)) * float(lasts[dense].mean())
        step = timeline.step_seconds
        computing = [number for number, task in enumerate(tasks) if task.operation not in COMMUNICATION]
        busy_R = (timeline.ends_NR[computing] - timeline.starts_NR[computing]).sum(axis=0)
        return Estimate(step + more, (step + more) * float(busy_R.max()) / step)


def _of_layers(model: ModelSpec, kept: list[int]) -> ModelSpec:
    """The model with only these layers, in their order."""
    changes: dict[str, object] = {
        "layers": len(kept),
        "dense_layers": tuple(new for new, layer in enumerate(kept) if layer in model.dense_layers),
    }
    if isinstance(model.attention, HeadAttention):
        windowed = tuple(new for new, layer in enumerate(kept) if layer in model.attention.windowed_layers)
        changes["attention"] = model.attention.model_copy(update={"windowed_layers": windowed})
    return model.model_copy(update=changes)
