"""Memory of a GPU that trains, by part.

Weights, gradients and optimizer states follow the ZeRO paper (arXiv:1910.02054). Activations count what backward
needs, tensor by tensor, as Korthikanti et al. do (arXiv:2205.05198, section 4), for today's layers: no dropout,
attention that keeps no scores, gated and routed experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.simulate.training.layout import Recompute, TrainingLayout
from wingspan.specs.model import LatentAttention, ModelSpec

_BF16 = 2
_LOSS_BYTES = 4 + 2
"""A logit in FP32 for the loss, and its gradient in BF16."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one GPU."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    reserve: float

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.reserve


@dataclass(frozen=True)
class Stage:
    """A stage's layers and what else lies there."""

    dense_layers: int
    moe_layers: int
    beside: int
    """Parameters of embedding or head."""
    micro_batches: int
    """Those under way at once."""
    logits: bool


def fullest(
    model: ModelSpec, layout: TrainingLayout, tokens: int, micro_batches: int, reserve_bytes: float
) -> TrainingMemory:
    """Memory of the fullest stage's GPUs.

    Args:
        model: what trains.
        layout: how it is spread.
        tokens: those of a micro-batch.
        micro_batches: of a rank in a step.
        reserve_bytes: for the driver, libraries and fragments.
    """
    uses = [
        _memory(model, layout, stage, tokens, reserve_bytes) for stage in stages(model, layout, micro_batches)
    ]
    return max(uses, key=lambda use: use.total)


def stages(model: ModelSpec, layout: TrainingLayout, micro_batches: int) -> list[Stage]:
    """Contiguous layers, the remainder one each on the later stages, which hold fewer micro-batches.

    In 1F1B stage i of p has p - i micro-batches under way (arXiv:2205.05198, section 4.2.3).
    """
    each, more = divmod(model.layers, layout.pipeline)
    dense, parameters = set(model.dense_layers), model.parameters
    found, first = [], 0
    for number in range(layout.pipeline):
        count = each + (number >= layout.pipeline - more)
        held = range(first, first + count)
        first += count
        last = number == layout.pipeline - 1
        found.append(
            Stage(
                dense_layers=sum(layer in dense for layer in held),
                moe_layers=sum(layer not in dense for layer in held),
                beside=(parameters.embedding if number == 0 else 0) + (parameters.head if last else 0),
                micro_batches=min(layout.pipeline - number, micro_batches),
                logits=last,
            )
        )
    return found


def stage_parameters(model: ModelSpec, layout: TrainingLayout, stage: Stage) -> tuple[float, float]:
    """Parameters that every rank of a stage has, and those of the experts that one rank has."""
    parameters = model.parameters
    moe, dense = (
        stage.moe_layers / len(model.moe_layers),
        stage.dense_layers / max(len(model.dense_layers), 1),
    )
    share = (stage.moe_layers + stage.dense_layers) / model.layers
    common = (parameters.attention + parameters.norms) * share + parameters.dense * dense + stage.beside
    common += (parameters.router + parameters.shared_experts) * moe
    experts = parameters.expert * parameters.experts_per_layer * stage.moe_layers / layout.experts
    return common, experts


def layer_bytes(model: ModelSpec, recompute: Recompute, *, moe: bool) -> float:
    """What one layer keeps of one token until backward; of experts as many rows as a token has (even routing)."""
    hidden, attention, experts = model.hidden, model.attention, model.experts
    if recompute is Recompute.FULL:
        return _BF16 * hidden
    every = recompute is Recompute.NONE
    *to_heads, (attended, _) = attention.projections(hidden)
    outputs = sum(columns for _, columns in to_heads)
    if isinstance(attention, LatentAttention) and not every:
        # The compressed rows are kept, and projected up again.
        outputs = attention.kv_rank + attention.rope_dim
        outputs += attention.query_rank or attention.heads * (attention.nope_dim + attention.rope_dim)
    norms = 2 * hidden if every else 0
    values = 2 * hidden + norms + outputs + attended
    # Up (and gate) products, and the activation's product.
    inner = experts.matrices - 1 + every
    if not moe:
        return _BF16 * (values + inner * model.dense_intermediate)
    rows = experts.per_token * (2 * hidden + inner * experts.intermediate)
    return _BF16 * (values + rows + inner * experts.shared_intermediate) + 4 * experts.count


def _memory(
    model: ModelSpec, layout: TrainingLayout, stage: Stage, tokens: int, reserve_bytes: float
) -> TrainingMemory:
    states, replicas = layout.states, layout.data // layout.experts
    common, experts = stage_parameters(model, layout, stage)

    def held(each: float, from_zero: int) -> float:
        """Ranks with the same weights divide them: all of a stage, or those with the same experts."""
        if states.zero < from_zero:
            return each * (common + experts)
        return each * (common / layout.data + experts / replicas)

    layers = max(stage.dense_layers + stage.moe_layers, 1)
    # The layer that computes and the next, which is fetched meanwhile.
    gathered = states.gathered * (common - stage.beside + experts) * min(2, layers) / layers
    gathered += states.gathered * stage.beside
    kept = {moe: layer_bytes(model, layout.recompute, moe=moe) for moe in (False, True)}
    one = stage.dense_layers * kept[False] + stage.moe_layers * kept[True]
    again = (
        layer_bytes(model, Recompute.NONE, moe=stage.moe_layers > 0)
        if layout.recompute is Recompute.FULL
        else 0.0
    )
    logits = model.vocabulary * _LOSS_BYTES if stage.logits else 0.0
    return TrainingMemory(
        weights=held(states.weights, 3) + gathered,
        gradients=held(states.gradients, 2),
        optimizer=held(states.optimizer, 1),
        activations=tokens * (one * stage.micro_batches + max(again, logits)),
        reserve=reserve_bytes,
    )
