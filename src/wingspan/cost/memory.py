"""What a GPU must hold during a step: weights by part, KV cache, activations, communication buffers, the rest.

All figures are bytes of one rank. Shapes: R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.execution import DispatcherKind
from wingspan.specs.memory import MemoryPart
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import Precisions
from wingspan.traffic.links import row_bytes

Bytes = NDArray[np.float64]

_RESIDUAL_BYTES = 2
"""Hidden states between layers stay in BF16 whatever the products compute in."""
_LOGIT_BYTES = 4
_PARTS = ("attention", "dense", "shared_experts", "router", "norms")
"""Parts of a layer that every rank of an attention group holds."""


@dataclass(frozen=True, eq=False)
class Holding:
    """What one rank's memory depends on beside the model.

    Args:
        experts_R: experts held, summed over MoE layers; (R,) or a number.
        slots_per_layer: experts held in one layer, at most.
        ranks: all of them.
        attention_ranks: ranks over which attention, dense layers, embedding and head are cut.
        tokens: new tokens of the rank in the step.
        sequences: sequences whose cache the rank holds.
        context: tokens cached for each, after the step.
        rows_R: rows that arrive for the rank's experts in one layer, (R,) or a number.
        dispatcher: how rows travel; it decides which buffers must exist.
        expert_tensor_parallel: ranks over which each expert is cut; `experts_R` and `rows_R` are those of all of them.
        replicated: these ranks all hold all of their tokens; the shared experts are then cut as well.
        logits: tokens of the step whose logits are computed.
        mtp_layers: layers beside the model's that predict further tokens.
        parts: pieces that travel at once, one after the other (chunks or micro-batches).
    """

    experts_R: Bytes | float
    slots_per_layer: int
    ranks: int
    attention_ranks: int
    tokens: float
    sequences: float
    context: float
    rows_R: Bytes | float
    dispatcher: DispatcherKind
    parts: int = 1
    expert_tensor_parallel: int = 1
    replicated: bool = False
    logits: float = 0.0
    mtp_layers: int = 0

    @property
    def copies(self) -> int:
        """Ranks whose tokens each rank holds, itself included."""
        return self.attention_ranks if self.replicated else 1


def weight_bytes(model: ModelSpec, precisions: Precisions, holding: Holding) -> dict[MemoryPart, Bytes]:
    """Weights of each part of `WEIGHTS`.

    Routers and norms are kept whole on each rank, and the embedding with the head once per attention group.
    """
    whole, more = precisions.unquantised.weight_bytes, holding.mtp_layers
    parameters, further = model.parameters, model.mtp_parameters
    of_all = {name: getattr(parameters, name) + more * getattr(further, name) for name in _PARTS}
    group = holding.attention_ranks
    sizes = {
        MemoryPart.ATTENTION: of_all["attention"] * precisions.attention.weights.weight_bytes / group,
        MemoryPart.DENSE: of_all["dense"] * precisions.dense.weights.weight_bytes / group,
        MemoryPart.SHARED_EXPERTS: of_all["shared_experts"]
        * precisions.shared.weights.weight_bytes
        / holding.copies,
        # Small, and kept in 16 bits where the matrices are quantised.
        MemoryPart.ROUTERS_AND_NORMS: (of_all["router"] + of_all["norms"]) * whole,
        MemoryPart.EMBEDDING_AND_HEAD: (parameters.embedding + parameters.head) * whole / group,
        MemoryPart.EXPERTS: (
            np.asarray(holding.experts_R) + more * further.moe_layers * holding.slots_per_layer
        )
        * (parameters.expert / holding.expert_tensor_parallel)
        * precisions.experts.weights.weight_bytes,
    }
    return {part: np.asarray(size, dtype=np.float64) for part, size in sizes.items()}


def kv_cache_bytes(model: ModelSpec, precisions: Precisions, holding: Holding) -> float:
    """The cache and the states of all sequences; a windowed layer keeps its window only."""
    group, values, states = holding.attention_ranks, 0.0, 0.0
    further = model.mtp_kind.mixers if holding.mtp_layers else ()
    for mixer, layers in (*model.mixers, *((mixer, holding.mtp_layers) for mixer in further)):
        share = layers * mixer.cache_share(group)
        values += share * float(mixer.cached_values(holding.context))
        states += share * mixer.state_bytes
    # A group of tensor-parallel ranks holds the sequences of all its ranks together.
    return holding.sequences * group * (values * precisions.kv.bytes + states)


def activation_bytes(model: ModelSpec, precisions: Precisions, holding: Holding) -> Bytes:
    """The most that one layer's inputs, outputs and inner rows take at once, or the logits if they take more."""
    hidden, experts, act = model.hidden, model.experts, precisions.experts.activations.bytes
    tokens, group = holding.tokens, holding.attention_ranks
    gathered = tokens * group
    stream = 2 * tokens * holding.copies * hidden * _RESIDUAL_BYTES
    widest = max(outputs for mixer, _ in model.mixers for _, outputs in mixer.projections(hidden)) / group
    attention = gathered * (hidden + 2 * widest) * _RESIDUAL_BYTES
    inner = experts.matrices * experts.intermediate / holding.expert_tensor_parallel
    mlps = [kind.dense.matrices * kind.dense.intermediate for kind in model.kinds if kind.dense]
    dense = gathered * (hidden + max(mlps, default=0) / group) * _RESIDUAL_BYTES
    routed = np.asarray(holding.rows_R) / holding.parts * (model.row_width * act + inner * _RESIDUAL_BYTES)
    shared = tokens * experts.matrices * experts.shared_intermediate * _RESIDUAL_BYTES
    logits = (holding.logits or holding.sequences) * model.vocabulary * _LOGIT_BYTES
    layer = np.maximum(np.maximum(attention, dense if mlps else 0.0), routed + shared)
    return np.asarray(np.maximum(stream + layer, stream + logits), dtype=np.float64)


def buffer_bytes(model: ModelSpec, precisions: Precisions, holding: Holding) -> Bytes:
    """Buffers of dispatch and combine, for sending and receiving.

    Low-latency kernels cannot know who sends how much, so every slot has room for all tokens of every rank, twice,
    so that one exchange may begin while the last is read (DeepEP, README, "Low-latency kernels"; the same holds
    for any transport that fixes its shapes before a step). Others hold the rows that do arrive. Ranks that share
    experts hold what they gather and sum as well, and only that where all of them do.
    """
    out = row_bytes(model.row_width, precisions.dispatch)
    back = row_bytes(model.row_width, precisions.combine)
    tokens = holding.tokens / holding.parts
    in_flight, cut = 2 if holding.parts > 1 else 1, holding.expert_tensor_parallel
    rows_R = np.asarray(holding.rows_R, dtype=np.float64) / holding.parts
    if holding.replicated or cut == holding.ranks > 1:
        return np.asarray(in_flight * tokens * holding.ranks * (back if holding.replicated else out + back))
    shared_R = in_flight * rows_R * (out + back) if cut > 1 else 0.0
    if holding.dispatcher is DispatcherKind.FLAT:
        received = holding.slots_per_layer * (holding.ranks // cut) * tokens * max(out, back)
        sent = tokens * model.experts.per_token * max(out, back)
        return np.asarray(2 * (received + sent) + shared_R, dtype=np.float64)
    copies = min(model.experts.per_token, holding.ranks // cut)
    both: Bytes = in_flight * (rows_R / cut + tokens * copies) * (out + back) + shared_R
    return both


def memory_bytes(
    model: ModelSpec, precisions: Precisions, holding: Holding, reserve_bytes: float
) -> dict[MemoryPart, Bytes]:
    """Bytes of every part, weights first: each (R,) or one number where all ranks are alike."""
    return {
        **weight_bytes(model, precisions, holding),
        MemoryPart.KV_CACHE: np.asarray(kv_cache_bytes(model, precisions, holding)),
        MemoryPart.ACTIVATIONS: activation_bytes(model, precisions, holding),
        MemoryPart.BUFFERS: buffer_bytes(model, precisions, holding),
        MemoryPart.OTHER: np.asarray(float(reserve_bytes)),
    }
