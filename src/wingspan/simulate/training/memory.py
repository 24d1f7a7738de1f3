"""Memory of a GPU that trains, by part.

Weights, gradients and optimizer states follow the ZeRO paper (arXiv:1910.02054). Activations count what backward
needs, tensor by tensor, as Korthikanti et al. do (arXiv:2205.05198, section 4), for today's layers: no dropout,
attention that keeps no scores, gated and routed experts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wingspan.simulate.training.layout import Recompute, TrainingLayout
from wingspan.specs.model import LayerKind, ModelSpec

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

    kinds: tuple[LayerKind, ...]
    """What its layers are, from the first."""
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
    parameters = model.parameters
    found, first = [], 0
    for number in range(layout.pipeline):
        count = each + (number >= layout.pipeline - more)
        held = tuple(model.kind_of(layer) for layer in range(first, first + count))
        first += count
        last = number == layout.pipeline - 1
        found.append(
            Stage(
                kinds=held,
                beside=(parameters.embedding if number == 0 else 0) + (parameters.head if last else 0),
                micro_batches=min(layout.pipeline - number, micro_batches),
                logits=last,
            )
        )
    return found


def stage_parameters(model: ModelSpec, layout: TrainingLayout, stage: Stage) -> tuple[float, float]:
    """Parameters that every rank of a stage has, and those of the experts that one rank has."""
    each = [(model.kind_parameters(kind), count) for kind, count in Counter(stage.kinds).items()]
    common = sum((one.beside_experts) * count for one, count in each) + stage.beside
    experts = sum(one.routed_experts * count for one, count in each) / layout.experts
    return float(common), experts


def layer_bytes(model: ModelSpec, kind: LayerKind, recompute: Recompute) -> float:
    """What one layer keeps of one token until backward; of experts as many rows as a token has (even routing)."""
    hidden, experts, dense = model.hidden, kind.experts, kind.dense
    if recompute is Recompute.FULL:
        return _BF16 * hidden
    every = recompute is Recompute.NONE
    # Each half of a layer keeps its input, and its norm's output.
    values = (1 + every) * hidden * (bool(kind.mixers) + bool(dense or experts))
    for mixer in kind.mixers:
        values += sum(mixer.kept_columns(hidden, selective=not every))
    if dense:
        values += (dense.matrices - 1 + every) * dense.intermediate
    if experts is None:
        return _BF16 * values
    # Up (and gate) products, and the activation's product.
    inner = experts.matrices - 1 + every
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

    layers = max(len(stage.kinds), 1)
    # The layer that computes and the next, which is fetched meanwhile.
    gathered = states.gathered * (common - stage.beside + experts) * min(2, layers) / layers
    gathered += states.gathered * stage.beside
    each = [(kind, count) for kind, count in Counter(stage.kinds).items()]
    one = sum(count * layer_bytes(model, kind, layout.recompute) for kind, count in each)
    again = 0.0
    if layout.recompute is Recompute.FULL:
        again = max((layer_bytes(model, kind, Recompute.NONE) for kind, _ in each), default=0.0)
    logits = model.vocabulary * _LOSS_BYTES if stage.logits else 0.0
    return TrainingMemory(
        weights=held(states.weights, 3) + gathered,
        gradients=held(states.gradients, 2),
        optimizer=held(states.optimizer, 1),
        activations=tokens * (one * stage.micro_batches + max(again, logits)),
        reserve=reserve_bytes,
    )
