"""Attention by heads whose layers differ in more than their windows."""

from __future__ import annotations

from wingspan.specs.families.experts import dense_layers, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads, window_of
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention, Mixer
from wingspan.specs.reading import parse


def gated_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Beam: a gate per value of the output, with one bias per head, and norms of queries and keys."""
    plain = heads(reader, family, layer)
    return (
        plain.model_copy(
            update={"gated_output": "values", "extra_parameters": 2 * plain.head_dim + plain.heads}
        ),
    )


def laguna_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Laguna: as many heads as the layer's entry says, and a gate per head or per value."""
    plain = heads(reader, family, layer)
    gating = reader.optional("gating")
    gate = "none" if gating is False else "values" if gating == "per-element" else "head"
    count = reader.integer("num_attention_heads_per_layer", "num_attention_heads", layer=layer)
    return (
        parse(
            HeadAttention,
            {
                **plain.model_dump(),
                "heads": count,
                "gated_output": gate,
                "extra_parameters": 2 * plain.head_dim,
            },
            reader.source,
        ),
    )


def mimo_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """MiMo-V2: layers with a window have their own heads and a learned sink for each; of V2.5 Pro by the config.

    Raises:
        InputError: a field is missing or unfit.
    """
    plain, window = heads(reader, family, layer), window_of(reader, family, layer)
    value_dim = reader.integer("v_head_dim", default=plain.head_dim)
    own = {
        "heads": plain.heads,
        "kv_heads": plain.kv_heads,
        "head_dim": plain.head_dim,
        "value_dim": value_dim,
    }
    sunk = reader.flag("add_full_attention_sink_bias", default=False)
    if window is not None:
        sunk = reader.flag("add_swa_attention_sink_bias", default=True)
        own = {
            "heads": reader.integer("swa_num_attention_heads", default=plain.heads),
            "kv_heads": reader.integer("swa_num_key_value_heads", default=2 * plain.kv_heads),
            "head_dim": reader.integer("swa_head_dim", default=plain.head_dim),
            "value_dim": reader.integer("swa_v_head_dim", default=value_dim),
        }
    extra = plain.extra_parameters + (own["heads"] if sunk else 0)
    return (parse(HeadAttention, {**plain.model_dump(), **own, "extra_parameters": extra}, reader.source),)


def shared_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Hunyuan-Large: layers read the keys and values of the first of their group (CLA, arXiv:2405.12981).

    Raises:
        InputError: a field is missing or unfit.
    """
    plain = heads(reader, family, layer)
    group = max(1, reader.integer("cla_share_factor", default=1))
    if not reader.flag("use_cla", default=False) or layer % group == 0:
        return (plain,)
    # Keys of an earlier layer have had their norm.
    extra = plain.extra_parameters - (plain.head_dim if family.query_key_norm == "head" else 0)
    return (plain.model_copy(update={"own_cache": False, "extra_parameters": extra}),)


def muse_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Muse Spark: every fourth layer, counted back from the last, sees everything where the config lists no kinds."""
    plain = heads(reader, family, layer)
    if reader.optional("layer_types") is None and (layer_count(reader) - 1 - layer) % 4 == 0:
        plain = plain.model_copy(update={"window_tokens": None})
    return (plain,)


def expert_norms(reader: Reader, layer: int) -> int:
    """Muse Spark: norms of the narrower row that goes to experts, and of what comes back."""
    dense = dense_layers(reader, Family(), layer_count(reader))
    return 0 if layer in dense else 2 * reader.integer("moe_hidden_size")
