"""Which parameters are a layer's attention, its experts, its router, its MLP or its norms: by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from wingspan.specs.from_weights.weights import Weight

_LAYER = re.compile(r"^((?:.*?\.)?(?:layers|h|blocks|layer|block))\.(\d+)\.(.+)$")
_EXPERT = re.compile(r"(?:^|\.)experts\.")
_SHARED = re.compile(r"shared_expert|share_expert|shared_mlp")
_MLP = re.compile(r"mlp|feed_forward|ffn|moe")
_BUFFER = re.compile(r"correction_bias|expert_bias$|inv_freq|tokens_per_expert")
"""What a router keeps without training it, and what is no parameter at all."""
DOWN = ("down_proj", "w2", "output_linear", "fc2", "down", "c_proj", "linear_2")
"""Names of the matrix that leads back from an MLP."""
_OTHER_PARTS = re.compile(r"visual|vision|audio|image|video|speech|projector|connector|talker|code2wav|tower")
"""Names of parts that make no text."""


@dataclass
class Layer:
    """The parameters of a layer, by part."""

    attention: list[Weight] = field(default_factory=list)
    dense: list[Weight] = field(default_factory=list)
    experts: list[Weight] = field(default_factory=list)
    router: list[Weight] = field(default_factory=list)
    shared: list[Weight] = field(default_factory=list)
    norms: list[Weight] = field(default_factory=list)
    predicts: bool = False
    """Whether it predicts a further token from the model's last hidden state and an embedding."""

    @property
    def values(self) -> int:
        """Parameters of all parts."""
        parts = (self.attention, self.dense, self.experts, self.router, self.shared, self.norms)
        return sum(weight.values for part in parts for weight in part)


@dataclass
class Stack:
    """The layers that make text, and what is beside them."""

    layers: dict[int, Layer]
    beside: list[Weight]
    """Embedding, head, last norm and whatever else is of no layer."""
    other_parts: int
    """Values of parts that make no text, and of other stacks."""


def text_stack(weights: Iterable[Weight]) -> Stack | None:
    """The layers of the longest stack with experts; None where none has any."""
    stacks: dict[str, dict[int, list[tuple[str, Weight]]]] = {}
    beside: list[Weight] = []
    for weight in weights:
        if _BUFFER.search(weight.name) and len(weight.shape) < 2:
            continue
        found = _LAYER.match(weight.name)
        if found is None:
            beside.append(weight)
        else:
            stacks.setdefault(found[1], {}).setdefault(int(found[2]), []).append((found[3], weight))
    with_experts = {
        name: layers
        for name, layers in stacks.items()
        if any(_EXPERT.search(rest) for layer in layers.values() for rest, _ in layer)
    }
    if not with_experts:
        return None
    chosen = max(with_experts, key=lambda name: len(with_experts[name]))
    text = [weight for weight in beside if not _OTHER_PARTS.search(weight.name)]
    elsewhere = sum(w.values for w in beside if _OTHER_PARTS.search(w.name)) + sum(
        weight.values
        for name, layers in stacks.items()
        if name != chosen
        for layer in layers.values()
        for _, weight in layer
    )
    return Stack({n: _layer(of) for n, of in sorted(with_experts[chosen].items())}, text, elsewhere)


_INNER = {"up_proj", "gate_proj", "down_proj", "w1", "w2", "w3", "fc1", "fc2"}
"""Matrices of an MLP."""


def _layer(of: list[tuple[str, Weight]]) -> Layer:
    layer = _sorted(of)
    # Where all parts of layers stand under one name, an MLP is known by its matrices; and what has none is no MLP.
    if {weight.module for weight in layer.attention if len(weight.shape) == 2} <= _INNER:
        layer.dense, layer.attention = layer.dense + layer.attention, []
    if not any(weight.module in DOWN for weight in layer.dense):
        layer.norms, layer.dense = layer.norms + layer.dense, []
    return layer


def _sorted(of: list[tuple[str, Weight]]) -> Layer:
    layer = Layer()
    modules = {rest[: found.start()] for rest, _ in of if (found := _EXPERT.search(rest))}
    for rest, weight in of:
        layer.predicts |= "eh_proj" in rest
        _part(layer, rest, weight, modules).append(weight)
    return layer


def _part(layer: Layer, rest: str, weight: Weight, with_experts: set[str]) -> list[Weight]:
    """The list that a parameter belongs to; `with_experts` are the modules that hold experts."""
    first = rest.partition(".")[0]
    if _SHARED.search(rest):
        return layer.shared
    if _EXPERT.search(rest):
        return layer.experts
    if "router" in rest or any(module and rest.startswith(f"{module}.") for module in with_experts):
        return layer.router
    if len(weight.shape) == 1 and "norm" in first:
        return layer.norms
    if _MLP.search(first) and "norm" not in first:
        return layer.dense
    if "norm" in first or ("." not in rest and len(weight.shape) == 1):
        return layer.norms
    return layer.attention
