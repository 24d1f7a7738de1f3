"""Attention that reads the tokens an index chooses."""

from __future__ import annotations

from collections.abc import Mapping

from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.experts import dense_layers, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads, latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.families.streams import gated_streams
from wingspan.specs.mixers import HeadAttention, LatentAttention, Mixer
from wingspan.specs.reading import parse


def indexed_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """DeepSeek sparse attention: every layer has an index, or takes the choice of the last one that has."""
    return (chosen(reader, latent(reader), layer),)


def gated_indexed_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """A.X-K2: queries come with a gate per value of the output."""
    return (chosen(reader, latent(reader).model_copy(update={"gate_from_queries": True}), layer),)


def sunk_indexed_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """Hunyuan 4: a gate per value of the output, a sink per head, and what mixes streams."""
    plain = latent(reader)
    extra = plain.extra_parameters + plain.heads
    gated = plain.model_copy(update={"gated_output": "values", "extra_parameters": extra})
    return (chosen(reader, gated, layer), gated_streams(reader, layer))


def windowed_indexed_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """dots3: a window in three of four layers, whose heads are others, and an index in the rest; a gate per head.

    Raises:
        InputError: a field is missing or unfit.
    """
    kinds = reader.listed("layer_types", of=str)
    narrow = (
        layer > 1 and layer % 4 != 1 if kinds is None else kinds[layer : layer + 1] == ["sliding_attention"]
    )
    own = reader.of_layer(layer)
    if narrow and reader.optional("per_layer_config") is None:
        own = Reader({**reader.config, **_dots3_window(reader)}, reader.source)
    plain = latent(own)
    # The rotated key has a norm.
    extra = plain.extra_parameters + plain.rope_dim
    gated = plain.model_copy(update={"gated_output": "head", "extra_parameters": extra})
    if narrow:
        window = reader.integer("sliding_window", "sliding_window_size", default=512, most=MOST_CONTEXT)
        return (gated.model_copy(update={"window_tokens": window}),)
    everything = kinds is not None and kinds[layer : layer + 1] == ["full_attention"]
    return (gated if everything else chosen(reader, gated, layer),)


def _dots3_window(reader: Reader) -> dict[str, int]:
    """What layers with a window have, as published configs say it; defaults are transformers'."""
    usual = {
        "num_attention_heads": 64,
        "q_lora_rank": 1024,
        "kv_lora_rank": 1024,
        "head_dim": 256,
        "qk_nope_head_dim": 192,
        "v_head_dim": 128,
    }
    own = {name: reader.integer(f"swa_{name}", default=value) for name, value in usual.items()}
    rope = max(0, own["head_dim"] - own["qk_nope_head_dim"])
    return {**own, "qk_rope_head_dim": reader.integer("swa_qk_rope_head_dim", default=rope)}


def indexed_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """MiniMax-M3: in the layers that the config names an index, whose best blocks of tokens are read.

    Raises:
        InputError: a field is missing or unfit.
    """
    plain = heads(reader, family, layer)
    said = reader.optional("sparse_attention_config")
    old = Reader(said if isinstance(said, Mapping) else {}, reader.source)
    each, kinds = old.listed("sparse_attention_freq", of=int), reader.listed("layer_types", of=str)
    sparse = bool(each and any(each[layer : layer + 1]))
    if kinds is not None:
        sparse = kinds[layer : layer + 1] == ["minimax_m3_sparse"]
    if not sparse:
        return (plain,)
    width = old.integer("sparse_index_dim", default=reader.integer("index_head_dim"))
    block = old.integer("sparse_block_size", default=reader.integer("index_block_size"))
    blocks = old.integer("sparse_topk_blocks", default=reader.integer("index_topk_blocks"))
    index = {
        "heads": old.integer("sparse_num_index_heads", default=reader.integer("index_n_heads")),
        "head_dim": width,
        "top_tokens": blocks * block,
    }
    # The index's queries and its key have norms.
    extra = plain.extra_parameters + 2 * width
    return (
        parse(
            HeadAttention,
            {**plain.model_dump(), "index": index, "extra_parameters": extra},
            reader.source,
        ),
    )


def gated_norms(reader: Reader, layer: int) -> int:
    """A.X-K2: a gate of low rank on the norm before attention, and on the one before experts."""
    each = 2 * reader.integer("hidden_size") * reader.integer("gated_norm_rank", default=16)
    dense = dense_layers(reader, Family(dense_by_default=1), layer_count(reader))
    return each if layer in dense else 2 * each


def chosen(reader: Reader, plain: LatentAttention, layer: int) -> LatentAttention:
    """The attention with an index, or with the choice of the last layer that has one.

    Raises:
        InputError: a field is missing or unfit.
    """
    top = reader.integer("index_topk", most=MOST_CONTEXT)
    if not _has_index(reader, layer):
        return plain.model_copy(update={"shared_top_tokens": top})
    width = reader.integer("index_head_dim")
    return parse(
        LatentAttention,
        {
            **plain.model_dump(),
            "index": {"heads": reader.integer("index_n_heads"), "head_dim": width, "top_tokens": top},
            # The index's key has a norm with a bias.
            "extra_parameters": plain.extra_parameters + 2 * width,
        },
        reader.source,
    )


def _has_index(reader: Reader, layer: int) -> bool:
    """Whether a layer chooses for itself: by a list, by letters F and S, or by its place."""
    kinds = reader.listed("indexer_types", of=str)
    if kinds is not None:
        return layer >= len(kinds) or kinds[layer] != "shared"
    pattern = reader.optional("index_topk_pattern")
    if isinstance(pattern, str) and pattern:
        return pattern[layer % len(pattern)] != "S"
    every = max(1, reader.integer("index_topk_freq", default=1))
    offset = reader.integer("index_skip_topk_offset", default=2)
    return max(layer - offset + 1, 0) % every == 0
