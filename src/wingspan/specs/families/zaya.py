"""ZAYA: attention whose queries and keys pass a convolution, and a router that is an MLP, from a config."""

from __future__ import annotations

from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.experts import experts_of
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention
from wingspan.specs.model import Experts, LayerKind
from wingspan.specs.reading import parse

_SKIPS = 1
"""The choice that computes nothing, beside the experts."""


def zaya_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Compressed convolutional attention (CCA, arXiv:2510.04476), experts, and scaled streams around both.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden, router = reader.integer("hidden_size"), reader.integer("router_hidden_size")
    # Norms of both parts; a scale and a bias of both summands after each; before the first layer those of one. The
    # router of all but the first layer scales the state of the one before.
    first = 2 * hidden if layer == 0 else router
    return LayerKind(
        mixers=(_attention(reader, family, layer),),
        experts=_experts(reader, family, router),
        norm_parameters=10 * hidden + first,
    )


def _attention(reader: Reader, family: Family, layer: int) -> HeadAttention:
    plain = heads(reader, family, layer)
    first, second = reader.integer("cca_time0"), reader.integer("cca_time1")
    channels = (plain.heads + plain.kv_heads) * plain.head_dim
    # One filter per channel, then filters over all channels of a head.
    weights = channels * first + channels * plain.head_dim * second
    kinds = reader.listed("layer_types", of=str) or []
    narrow = layer < len(kinds) and kinds[layer] == "hybrid_sliding"
    # Half of each value is of the token before.
    kept = channels * max(0, first + second - 2) + plain.kv_heads * plain.head_dim // 2
    return parse(
        HeadAttention,
        {
            **plain.model_dump(),
            "window_tokens": reader.integer("sliding_window", most=MOST_CONTEXT) if narrow else None,
            "convolution": {"weights": weights, "kept_values": kept},
            # Their biases, and one temperature per key head.
            "extra_parameters": plain.extra_parameters + weights + 2 * channels + plain.kv_heads,
        },
        reader.source,
    )


def _experts(reader: Reader, family: Family, router: int) -> Experts:
    plain = experts_of(reader, family)
    # Three biases and a norm.
    fields = {"zero": _SKIPS, "router_width": router, "router_extra_parameters": 4 * router}
    return parse(Experts, {**plain.model_dump(), **fields}, reader.source)
