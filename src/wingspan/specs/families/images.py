"""ERNIE-VL: beside each expert for text one for images, which tokens of text never choose."""

from __future__ import annotations

from typing import Any

from wingspan.errors import InputError
from wingspan.specs.families.experts import dense_layers, dense_of, experts_of, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.model import Experts, LayerKind
from wingspan.specs.reading import parse

_OF_TEXT = (
    "moe_num_experts",
    "moe_intermediate_size",
    "moe_layer_start_index",
    "moe_layer_end_index",
)
"""Fields that published configs give for text and for images."""


def ernie_vl_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """One layer, whose router for images has as many choices as that for text.

    Raises:
        InputError: a field is missing or unfit.
    """
    text = Reader({**reader.config, **{name: _half(reader, name, 0) for name in _OF_TEXT}}, reader.source)
    hidden = reader.integer("hidden_size")
    plain = layer in dense_layers(text, family, layer_count(text))
    return LayerKind(
        mixers=(heads(text, family, layer),),
        dense=dense_of(text, gated=True) if plain else None,
        experts=None if plain else _experts(reader, text, family),
        norm_parameters=2 * hidden,
    )


def _experts(reader: Reader, text: Reader, family: Family) -> Experts:
    found = experts_of(text, family)
    counts = [_half(reader, "moe_num_experts", half) for half in (0, 1)]
    if counts[0] != counts[1]:
        raise InputError(
            f"{reader.source}: moe_num_experts = {counts}: as many experts for images as for text are known"
        )
    images = Reader({"width": _half(reader, "moe_intermediate_size", 1)}, reader.source)
    width = images.integer("width", default=found.intermediate)
    router = found.count * (reader.integer("hidden_size") + 1)
    return parse(
        Experts,
        {
            **found.model_dump(),
            "twin_intermediate": width,
            "router_extra_parameters": found.router_extra_parameters + router,
        },
        reader.source,
    )


def _half(reader: Reader, name: str, half: int) -> Any:
    """What a field says of text (0) or of images (1); one value is said of both."""
    value = reader.optional(name)
    return value[half] if isinstance(value, list) and len(value) == 2 else value
