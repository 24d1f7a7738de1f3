"""Layers with a dense MLP beside their experts: Arctic, Grok 2, Doge."""

from __future__ import annotations

from math import isqrt

from wingspan.errors import InputError
from wingspan.specs.families.experts import dense_layers, dense_of, experts_of, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.model import DenseMlp, Experts, LayerKind
from wingspan.specs.reading import parse


def arctic_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Snowflake Arctic: experts see what attention saw, and an MLP as wide as the hidden state what it gave.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden = reader.integer("hidden_size")
    plain = layer in dense_layers(reader, family, layer_count(reader))
    beside = reader.flag("use_residual", "parallel_attn_mlp_res", default=False)
    residual = parse(DenseMlp, {"intermediate": hidden, "gated": True}, reader.source)
    return LayerKind(
        mixers=(heads(reader, family, layer),),
        dense=dense_of(reader, gated=True) if plain else residual if beside else None,
        experts=None if plain else experts_of(reader, family),
        norm_parameters=hidden * (3 if beside and not plain else 2),
    )


def grok_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Grok: norms before and after each half; in Grok 2 a dense MLP beside the experts.

    Raises:
        InputError: a field is missing or unfit.
    """
    beside = reader.flag("residual_moe", default=False)
    return LayerKind(
        mixers=(heads(reader, family, layer),),
        dense=dense_of(reader, gated=True) if beside else None,
        experts=experts_of(reader, family),
        norm_parameters=4 * reader.integer("hidden_size"),
    )


def doge_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Doge: an MLP, and as experts single neurons that two halves of a key choose (arXiv:2407.04153).

    Raises:
        InputError: a field is missing or unfit, or the model has no experts.
    """
    if not reader.flag("is_moe", default=False):
        raise InputError(f"{reader.source}: is_moe is false: {reader.type} then has no experts to place")
    hidden, count = reader.integer("hidden_size"), reader.integer("num_experts")
    plain = heads(reader, family, layer)
    # A mask that keys' values give: a matrix to one per head, and its scale.
    mask = plain.kv_heads * plain.head_dim * plain.kv_heads + plain.kv_heads
    experts = parse(
        Experts,
        {
            "count": count,
            "per_token": reader.integer("num_experts_per_tok"),
            "intermediate": 1,
            "gated": False,
            "router_choices": 2 * isqrt(count),
        },
        reader.source,
    )
    return LayerKind(
        mixers=(plain.model_copy(update={"extra_parameters": plain.extra_parameters + mask}),),
        dense=dense_of(reader, gated=True),
        experts=experts,
        # Norms of both halves, and the weights of both streams.
        norm_parameters=4 * hidden,
    )
