"""What tokens that are tried ahead cost behind a step's layers: the layers that predict them.

A pass takes the last hidden state and the embedding of the token that was just chosen through a matrix, a layer like
the model's last one, and the head (DeepSeek-V3, arXiv:2412.19437, section 2.2). The first pass takes all tokens of the
step, each further one the token that the pass before gave.
"""

from __future__ import annotations

import numpy as np

from wingspan.cost.compute import BatchRegime, matmul_seconds
from wingspan.deployment import Deployment
from wingspan.specs.workload import RecordedRouting


def passes(deployment: Deployment) -> list[Deployment]:
    """One deployment for each pass: the layer that predicts, alone, with the pass's tokens."""
    model, workload, placement = deployment.model, deployment.workload, deployment.placement
    alone, number = model.mtp_layer_alone(), len(model.moe_layers) - 1
    if placement.slots is not None:
        placement = placement.model_copy(update={"slots": (placement.slots[number],)})
    if isinstance(workload.routing, RecordedRouting):
        loads = workload.routing.loads
        routing = workload.routing.model_copy(update={"loads": (loads[number % len(loads)],), "trace": None})
        workload = workload.model_copy(update={"routing": routing})
    further = workload.model_copy(update={"mtp_tokens": 0})
    return [
        deployment.model_copy(update={"model": alone, "workload": work, "placement": placement})
        for work in (workload, *(further for _ in range(workload.mtp_tokens - 1)))
    ]


def joining_seconds(deployment: Deployment) -> float:
    """The matrix of a pass: from a hidden state and an embedding to a hidden state."""
    tokens, hidden = deployment.of_attention_group(deployment.tokens_R).max(), deployment.model.hidden
    part, batch = deployment.precisions.dense, BatchRegime.of(deployment.workload.phase, deployment.sending)
    columns = hidden / deployment.options.attention_ranks
    seconds = matmul_seconds(
        deployment.used_cluster, tokens, 2 * hidden, columns, part.weights, part.activations, batch
    )
    return float(np.max(seconds))
