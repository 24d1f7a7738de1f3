"""How a training step is spread over GPUs: pipeline stages, data-parallel ranks, groups that spread experts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wingspan.simulate.layouts import ep_sizes
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec


class Recompute(StrEnum):
    """What of a layer is not kept from forward to backward but computed again."""

    NONE = "none"
    SELECTIVE = "selective"
    """Norms, activation products and MLA's up-projections (DeepSeek-V3, arXiv:2412.19437, section 3.2.3)."""
    FULL = "full"
    """All but each layer's input."""


@dataclass(frozen=True)
class States:
    """Bytes per parameter of what lasts from step to step, and what a ZeRO stage divides (arXiv:1910.02054, section 5).

    Args:
        style: whose they are.
        zero: optimizer states are divided from stage 1 on, gradients from 2, weights from 3.
        weights, gradients, optimizer: bytes of each; master weights count where they are kept.
        gathered: bytes of a weight while its layer computes, where weights are divided.
    """

    style: str
    zero: int
    weights: float
    gradients: float
    optimizer: float
    gathered: float = 0.0


STATES = (
    # Megatron-LM: BF16 weights, FP32 main gradients, FP32 master weights and both of Adam's moments
    # (docs/source/api-guide/dist_optimizer: 18 bytes, and 6 + 12 / d with the distributed optimizer).
    States("Megatron", 0, 2, 4, 12),
    States("Megatron", 1, 2, 4, 12),
    # torchtitan: FSDP2 keeps FP32 weights, gradients and moments divided, and gathers a layer's weights in BF16.
    States("torchtitan", 3, 4, 4, 8, gathered=2),
)


@dataclass(frozen=True)
class TrainingLayout:
    """One way to spread a step.

    Args:
        pipeline: stages of layers (PP).
        data: ranks of a stage, each with sequences of its own (DP).
        experts: of these, neighbours over which experts are spread (EP).
        recompute: what is computed again.
        states: what lasts, and how it is divided.
    """

    pipeline: int
    data: int
    experts: int
    recompute: Recompute
    states: States


def layouts(model: ModelSpec, cluster: Cluster, gpus: int, sequences: int) -> list[TrainingLayout]:
    """All that cut GPUs, layers, experts and sequences into alike parts, with no more stages than layers."""
    found = []
    for pipeline in (p for p in range(1, min(gpus, model.layers) + 1) if gpus % p == 0):
        data = gpus // pipeline
        if sequences % data:
            continue
        in_nodes = data <= cluster.gpus_per_node or data % cluster.gpus_per_node == 0
        sizes = ep_sizes(model.experts.count, cluster.part(data)) if in_nodes else []
        found += [
            TrainingLayout(pipeline, data, size, recompute, states)
            for size in sizes
            if model.experts.count % size == 0
            for recompute in Recompute
            for states in STATES
        ]
    return found
