"""Gemma 4: a dense MLP and experts beside each other, heads that differ by layer, tables looked up for each layer."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_EXPERTS
from wingspan.specs.families.experts import layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention
from wingspan.specs.model import DenseMlp, Experts, LayerKind
from wingspan.specs.reading import parse


def gemma4_layer(reader: Reader, family: Family, layer: int) -> LayerKind:  # noqa: ARG001 - a hook's form
    """One layer.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden, table = reader.integer("hidden_size"), _table_width(reader)
    shares = layer >= layer_count(reader) - reader.integer("num_kv_shared_layers", default=0)
    wide = shares and reader.flag("use_double_wide_mlp", default=False)
    experts = _experts(reader) if reader.flag("enable_moe_block", default=False) else None
    # The gate of the layer's looked-up row, the matrix back, and a norm.
    looked_up = 2 * hidden * table + hidden if table else 0
    return LayerKind(
        mixers=(_heads(reader, layer, shares=shares),),
        dense=parse(
            DenseMlp,
            {"intermediate": reader.integer("intermediate_size") * (2 if wide else 1), "gated": True},
            reader.source,
        ),
        experts=experts,
        norm_parameters=hidden * (4 if experts is None else 7) + looked_up,
    )


def layer_tables(reader: Reader) -> int:
    """A row of every layer for each token of the vocabulary."""
    rows = reader.integer("vocab_size_per_layer_input", default=262_144)
    return rows * layer_count(reader) * _table_width(reader)


def layer_projection(reader: Reader) -> int:
    """What leads from the embedding to the rows of all layers, and their norm."""
    width = _table_width(reader)
    return layer_count(reader) * width * reader.integer("hidden_size") + width


def _table_width(reader: Reader) -> int:
    return reader.integer("hidden_size_per_layer_input", default=256)


def _heads(reader: Reader, layer: int, *, shares: bool) -> HeadAttention:
    narrow = _is_narrow(reader, layer)
    same = reader.flag("attention_k_eq_v", default=False) and not narrow
    own = reader.of_layer(layer)
    if reader.optional("per_layer_config") is None and not narrow:
        wider = {"head_dim": reader.integer("global_head_dim", default=512)}
        if same and reader.optional("num_global_key_value_heads") is not None:
            wider["num_key_value_heads"] = reader.integer("num_global_key_value_heads")
        own = Reader({**reader.config, **wider}, reader.source)
    heads, width = reader.integer("num_attention_heads"), own.integer("head_dim", default=256)
    kv_heads = own.integer("num_key_value_heads")
    # Norms of queries and keys; keys of an earlier layer have had theirs.
    extra = width if shares else 2 * width
    if reader.flag("attention_bias", default=False):
        keys = 0 if shares else kv_heads * width * (1 if same else 2)
        extra += heads * width + keys + reader.integer("hidden_size")
    window = reader.integer("sliding_window", default=512, most=MOST_CONTEXT) if narrow else None
    return parse(
        HeadAttention,
        {
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": width,
            "window_tokens": window,
            "keys_are_values": same,
            "own_cache": not shares,
            "extra_parameters": extra,
        },
        reader.source,
    )


def _is_narrow(reader: Reader, layer: int) -> bool:
    """By the config's list, or five of six; the last layer always sees everything."""
    if layer == layer_count(reader) - 1:
        return False
    kinds = reader.listed("layer_types", of=str)
    if kinds is None:
        return (layer + 1) % 6 != 0
    if layer >= len(kinds):
        raise InputError(f"{reader.source}: layer_types has {len(kinds)} entries, none for layer {layer}")
    return bool(kinds[layer] == "sliding_attention")


def _experts(reader: Reader) -> Experts:
    count = reader.integer("num_experts", most=MOST_EXPERTS)
    return parse(
        Experts,
        {
            "count": count,
            "per_token": reader.integer("top_k_experts", most=MOST_EXPERTS),
            "intermediate": reader.integer("moe_intermediate_size"),
            "gated": True,
            # A scale per value of the router's input, and one per expert.
            "router_extra_parameters": reader.integer("hidden_size") + count,
        },
        reader.source,
    )
