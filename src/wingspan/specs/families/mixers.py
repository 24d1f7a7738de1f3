"""The mixers of a layer, from a config."""

from __future__ import annotations

from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention, LatentAttention, Mixer
from wingspan.specs.reading import parse


def mixers_of(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Those of one layer.

    Raises:
        InputError: a field is missing or unfit.
    """
    if family.mixers is not None:
        return family.mixers(reader, family, layer)
    return (latent(reader) if family.latent else heads(reader, family, layer),)


def heads(reader: Reader, family: Family, layer: int) -> HeadAttention:
    """Attention by heads, as most families spell it.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden = reader.integer("hidden_size")
    count = reader.integer("num_attention_heads", layer=layer)
    kv_heads = reader.integer("num_key_value_heads", default=count, layer=layer)
    head_dim = reader.integer("head_dim", default=hidden // max(1, count))
    widths = {"query": count * head_dim, "key": kv_heads * head_dim}
    norm = reader.flag("use_qk_norm", default=False) and reader.type == "glm4_moe"
    extra = {"none": 0, "head": 2 * head_dim, "width": widths["query"] + widths["key"]}[
        "head" if norm else family.query_key_norm
    ]
    biased = family.attention_bias
    if biased is None:
        biased = reader.flag("attention_bias", "qkv_bias", "use_bias", default=False)
    if biased:
        extra += widths["query"] + 2 * widths["key"] + (hidden if family.output_bias else 0)
    if family.sinks:
        extra += count
    return parse(
        HeadAttention,
        {
            "heads": count,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "extra_parameters": extra,
            "gated_output": family.output_gate,
            "window_tokens": window_of(reader, family, layer),
        },
        reader.source,
    )


def latent(reader: Reader) -> LatentAttention:
    """Latent attention, as DeepSeek spells it.

    Raises:
        InputError: a field is missing or unfit.
    """
    # Published configs say null where queries are not compressed.
    query_rank = reader.integer("q_lora_rank", default=0) or None
    kv_rank = reader.integer("kv_lora_rank")
    extra = kv_rank + (query_rank or 0)
    if reader.flag("attention_bias", default=False):
        extra += (
            (query_rank or 0) + kv_rank + reader.integer("qk_rope_head_dim") + reader.integer("hidden_size")
        )
    return parse(
        LatentAttention,
        {
            "heads": reader.integer("num_attention_heads"),
            "query_rank": query_rank,
            "kv_rank": kv_rank,
            "nope_dim": reader.integer("qk_nope_head_dim"),
            "rope_dim": reader.integer("qk_rope_head_dim"),
            "value_dim": reader.integer("v_head_dim"),
            "extra_parameters": extra,
        },
        reader.source,
    )


def window_of(reader: Reader, family: Family, layer: int) -> int | None:
    """Tokens that a layer sees, where it does not see all."""
    window = reader.integer(*_WINDOW, default=0, most=MOST_CONTEXT) or None
    if window is None or reader.config.get("use_sliding_window") is False:
        return None
    kinds = reader.listed("layer_types", of=str)
    if kinds is not None:
        narrow = layer < len(kinds) and kinds[layer] in ("sliding_attention", "chunked_attention")
        return window if narrow else None
    pattern = reader.optional(*_PATTERN)
    if pattern is not None:
        return window if _is_narrow(reader, pattern, layer) else None
    if family.windows == "all":
        return window
    return window if family.windows == "alternate" and layer % 2 == 0 else None


_WINDOW = ("sliding_window", "sliding_window_size", "attention_chunk_size")
_PATTERN = ("hybrid_layer_pattern", "sliding_window_pattern", "global_attn_every_n_layers")


def _is_narrow(reader: Reader, pattern: object, layer: int) -> bool:
    """Whether a layer has the window: by a list of 0 and 1, letters L and G, or every so many layers without."""
    if isinstance(pattern, list):
        return layer < len(pattern) and pattern[layer] == 1
    if isinstance(pattern, str) and pattern:
        return pattern[layer % len(pattern)] == "L"
    every = reader.integer(*_PATTERN[1:])
    return every > 0 and (layer + 1) % every != 0
