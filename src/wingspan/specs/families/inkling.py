"""Inkling: places that are relative and learned, and short convolutions behind keys, values, attention and experts."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.experts import dense_layers, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention, Mixer
from wingspan.specs.reading import parse


def inkling_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """Inkling: norms of queries and keys.

    Raises:
        InputError: a field is missing or unfit.
    """
    sizes = _sizes(reader, layer)
    return (_attention(reader, sizes, extra=2 * sizes.head_dim, columns=0, gate="none"),)


def inkling2_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """Inkling 2: scales of queries and places, a sink per head that is projected, a gate per value.

    Layers without a window project the filters of keys and values too.

    Raises:
        InputError: a field is missing or unfit.
    """
    sizes = _sizes(reader, layer)
    filters = 0 if sizes.narrow else 2 * sizes.kv_heads * sizes.taps
    return (
        _attention(
            reader,
            sizes,
            extra=sizes.heads * (sizes.head_dim + sizes.place_width),
            columns=sizes.heads + filters,
            gate="values",
        ),
    )


def shared_sinks(reader: Reader, layer: int) -> int:
    """Inkling: the router scores the shared experts too, and has a scale."""
    if layer in dense_layers(reader, Family(), layer_count(reader)):
        return 0
    sinks = reader.integer("n_shared_experts") if reader.flag("shared_expert_sink", default=True) else 0
    return sinks * reader.integer("hidden_size") + 1


def inkling2_residuals(reader: Reader, layer: int) -> int:
    """Inkling 2: a query over the sums of earlier blocks before each half; three and three norms where all is seen."""
    hidden, narrow = reader.integer("hidden_size"), _is_narrow(reader, layer)
    queries = 0 if layer == 0 else 1 if narrow else 3
    return hidden * (1 + queries + (0 if narrow else 2))


def embedding_norm(reader: Reader) -> int:
    """Inkling: a norm behind the embedding."""
    return reader.integer("hidden_size")


def last_residual(reader: Reader) -> int:
    """Inkling 2: that norm, and a query behind the last layer."""
    return 2 * reader.integer("hidden_size")


@dataclass(frozen=True)
class _Sizes:
    """The attention of one layer, in figures."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    narrow: bool
    place_width: int
    taps: int


def _is_narrow(reader: Reader, layer: int) -> bool:
    """By the config's list of kinds or of layers, or five of six."""
    kinds, local = reader.listed("layer_types", of=str), reader.listed("local_layer_ids", of=int)
    if kinds is not None:
        return kinds[layer : layer + 1] == ["hybrid_sliding"]
    return layer in local if local is not None else (layer + 1) % 6 != 0


def _sizes(reader: Reader, layer: int) -> _Sizes:
    narrow = _is_narrow(reader, layer)
    own = "swa_" if narrow else ""
    return _Sizes(
        heads=reader.integer(f"{own}num_attention_heads"),
        kv_heads=reader.integer(f"{own}num_key_value_heads"),
        head_dim=reader.integer(f"{own}head_dim"),
        window=reader.integer("sliding_window_size", "sliding_window", most=MOST_CONTEXT),
        narrow=narrow,
        place_width=reader.integer("d_rel"),
        taps=reader.integer("sconv_kernel_size", "conv_kernel_size"),
    )


def _attention(reader: Reader, sizes: _Sizes, *, extra: int, columns: int, gate: str) -> HeadAttention:
    # Convolutions of keys, of values, of what attention gives and of what experts give.
    filtered = 2 * sizes.kv_heads * sizes.head_dim + 2 * reader.integer("hidden_size")
    places = sizes.window if sizes.narrow else reader.integer("rel_extent", most=MOST_CONTEXT)
    return parse(
        HeadAttention,
        {
            "heads": sizes.heads,
            "kv_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "window_tokens": sizes.window if sizes.narrow else None,
            "gated_output": gate,
            "further_columns": sizes.heads * sizes.place_width + columns,
            "convolution": {
                "weights": filtered * sizes.taps,
                "kept_values": filtered * sizes.taps,
                "kept_value_bytes": 4,
            },
            "extra_parameters": extra + filtered * sizes.taps + sizes.place_width * places,
        },
        reader.source,
    )
