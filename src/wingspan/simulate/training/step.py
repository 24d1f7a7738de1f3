"""How long a training step takes: 1F1B over the pipeline, then gradients and the optimizer.

Forward of a micro-batch is the predicted prefill of its EP group. Backward computes twice as much and sends as much
again; a pipeline of p stages idles for p - 1 micro-batches (arXiv:2104.04473, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wingspan.cost.compute import elementwise_seconds, matmul_seconds
from wingspan.cost.exchange import Collective, collective_seconds
from wingspan.deployment import Deployment
from wingspan.simulate.estimate import ShortModel
from wingspan.simulate.training.layout import Recompute, TrainingLayout
from wingspan.simulate.training.memory import layer_bytes, stage_parameters, stages
from wingspan.specs.precision import Precision
from wingspan.traffic.planes import plane_of

_GRADIENT_BYTES, _WEIGHT_BYTES = 4, 2
"""As they travel: gradients are summed in FP32, weights are gathered in BF16."""


@dataclass(frozen=True)
class Forward:
    """One micro-batch through all layers of one EP group: seconds, and those in which the busiest rank computes."""

    seconds: float
    computing_seconds: float
    selective_seconds: float
    """What computing norms, activation products and MLA's up-projections once more takes."""


@dataclass(frozen=True)
class TrainingStep:
    """Seconds of a step: the pipeline full and filling, what data-parallel ranks exchange in the open, the update."""

    busy: float
    bubble: float
    exchange: float
    update: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.busy + self.bubble + self.exchange + self.update


def forward_of(deployment: Deployment) -> Forward:
    """Predict the forward of an EP group.

    Args:
        deployment: a prefill of one micro-batch on each rank.
    """
    model, cluster, tokens = deployment.model, deployment.used_cluster, deployment.workload.tokens_per_gpu
    short = ShortModel(deployment)
    estimate = short.estimate(deployment, short.placement(deployment))
    attention = deployment.precisions.attention
    # A prefill computes the logits of each prompt's last token; training those of all.
    logits = matmul_seconds(cluster, tokens, model.hidden, model.vocabulary, Precision.BF16, Precision.BF16)
    again = 0.0
    for mixer, layers in model.mixers:
        for inner, columns in mixer.recomputed(model.hidden):
            up = matmul_seconds(cluster, tokens, inner, columns, attention.weights, attention.activations)
            again += layers * float(up)
    saved = sum(
        model.layers_of(n)
        * (layer_bytes(model, kind, Recompute.NONE) - layer_bytes(model, kind, Recompute.SELECTIVE))
        for n, kind in enumerate(model.kinds)
    )
    again += float(elementwise_seconds(cluster, saved * tokens))
    head = float(logits)
    return Forward(estimate.step_seconds + head, estimate.computing_seconds + head, again)


def step_of(
    deployment: Deployment, forward: Forward, layout: TrainingLayout, micro_batches: int
) -> TrainingStep:
    """Time of a whole step.

    Args:
        deployment: as in `forward_of`, on the cluster of all GPUs.
        forward: of this EP size.
        layout: how the step is spread.
        micro_batches: of a rank in a step.
    """
    cluster, model = deployment.cluster, deployment.model
    recomputed = {
        Recompute.NONE: 0.0,
        Recompute.SELECTIVE: forward.selective_seconds,
        Recompute.FULL: forward.seconds,
    }[layout.recompute]
    computing, sending = forward.computing_seconds, forward.seconds - forward.computing_seconds
    each = (3 * computing + 2 * sending + recomputed) / layout.pipeline
    if layout.pipeline > 1:
        rows = deployment.workload.tokens_per_gpu * model.hidden * _WEIGHT_BYTES
        each += 2 * rows / cluster.network_share_bytes_per_second
    exchanged, held = _data_parallel(deployment, layout, each, micro_batches)
    update = 2 * held / cluster.gpu.sustained_memory_bytes_per_second
    return TrainingStep(micro_batches * each, (layout.pipeline - 1) * each, exchanged, update)


def _data_parallel(
    deployment: Deployment, layout: TrainingLayout, each: float, micro_batches: int
) -> tuple[float, float]:
    """Seconds of what ranks with the same weights exchange beside the pipeline, and bytes of states updated."""
    model, states = deployment.model, layout.states
    replicas = layout.data // layout.experts
    held = [stage_parameters(model, layout, stage) for stage in stages(model, layout, micro_batches)]
    common, experts = max(held, key=sum)
    group = deployment.cluster.with_gpus(layout.data)
    between = plane_of(group, layout.experts)

    def together(kind: Collective, each_bytes: float) -> float:
        one = collective_seconds(group, kind, common * each_bytes, layout.data)
        other = collective_seconds(between, kind, experts * each_bytes, replicas)
        return float(np.add(one, other))

    own = common / layout.data + experts / replicas if states.zero else common + experts
    lasting = states.optimizer * own
    if states.zero == 0:
        return together(Collective.ALL_REDUCE, _GRADIENT_BYTES), lasting
    reduced = together(Collective.REDUCE_SCATTER, _GRADIENT_BYTES)
    gathered = together(Collective.ALL_GATHER, _WEIGHT_BYTES)
    if states.zero < 3:
        return reduced + gathered, lasting
    # Divided weights are gathered for forward and backward of every micro-batch, behind its computing.
    return micro_batches * max(0.0, 2 * gathered + reduced - each), lasting
