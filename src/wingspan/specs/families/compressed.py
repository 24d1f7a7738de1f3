"""DeepSeek-V4: compressed attention between residual streams, from a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.families.streams import mixed_streams
from wingspan.specs.mixers import CompressedAttention, Mixer
from wingspan.specs.reading import parse, shown

_WINDOW, _SPARSE, _HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_RATES = {_WINDOW: 0, _SPARSE: 4, _HEAVY: 128}
"""Tokens that a compressed one of a layer's kind stands for, where the config does not say."""
_OLD_RATES = {_SPARSE: "compress_rate_csa", _HEAVY: "compress_rate_hca"}


def compressed(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """A window, beyond it all heavily compressed tokens or the chosen lightly compressed ones, and what mixes streams.

    Raises:
        InputError: a field is missing or unfit.
    """
    kind = _kind(reader, layer)
    rate, width, rank = _rate(reader, kind), reader.integer("head_dim"), reader.integer("q_lora_rank")
    heads = reader.integer("num_attention_heads")
    # Norms of compressed queries and of the key, and a sink per head.
    extra = rank + width + heads
    index = None
    if kind == _HEAVY:
        extra += (rate + 1) * width
    if kind == _SPARSE:
        key = reader.integer("index_head_dim")
        index = {
            "heads": reader.integer("index_n_heads"),
            "head_dim": key,
            "top_tokens": reader.integer("index_topk", most=MOST_CONTEXT),
        }
        # Biases by place of both overlapping series, and a norm.
        extra += (2 * rate + 1) * (width + key)
    attention = parse(
        CompressedAttention,
        {
            "heads": heads,
            "query_rank": rank,
            "head_dim": width,
            "window_tokens": reader.integer("sliding_window", most=MOST_CONTEXT),
            "rate": rate,
            "index": index,
            "output_groups": reader.integer("o_groups"),
            "output_rank": reader.integer("o_lora_rank"),
            "extra_parameters": extra,
        },
        reader.source,
    )
    return (attention, mixed_streams(reader, layer))


def _kind(reader: Reader, layer: int) -> str:
    """By name, by the rates of the first configs, or as transformers' class has it where the config is silent."""
    ratios = reader.listed("compress_ratios", of=int)
    kinds = reader.listed("layer_types", of=str)
    if kinds is None and ratios is not None:
        unknown = [ratio for ratio in ratios if ratio not in _RATES.values()]
        if unknown:
            raise InputError(f"{reader.source}: compress_ratios has {unknown[0]}; 0, 4 and 128 are known")
        by_rate = {rate: kind for kind, rate in _RATES.items()}
        kinds = [by_rate[ratio] for ratio in ratios]
    if kinds is None:
        return _SPARSE if layer > 1 and layer % 2 else _HEAVY
    if layer >= len(kinds):
        raise InputError(f"{reader.source}: layer_types has {len(kinds)} entries, none for layer {layer}")
    if kinds[layer] not in _RATES:
        raise InputError(
            f"{reader.source}: layer_types has {shown(kinds[layer])}, which is not one of {', '.join(_RATES)}"
        )
    return str(kinds[layer])


def _rate(reader: Reader, kind: str) -> int:
    if kind == _WINDOW:
        return 0
    rates: Any = reader.optional("compress_rates") or {}
    if not isinstance(rates, Mapping):
        raise InputError(f"{reader.source}: compress_rates = {shown(rates)} must be an object")
    given = reader.integer(_OLD_RATES[kind], default=0) or rates.get(kind, _RATES[kind])
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InputError(
            f"{reader.source}: compress_rates.{kind} = {shown(given)} must be a whole number, 1 or more"
        )
    return given
