"""Linear attention and short convolutions, which keep a state, between layers of full attention, from a config."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

from wingspan.errors import InputError
from wingspan.limits import MOST_HEADS, MOST_LAYERS
from wingspan.specs.families.experts import layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads, latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import LinearMixer, Mixer
from wingspan.specs.reading import parse, shown

_LINEAR = ("linear_attention", "mamba", "conv", "short_conv")
_FULL = ("full_attention", "attention", "indexed_attention", "qwen_sparse_attention")
_RANKS_OF_CHANNELS = 128
"""A convolution or Mamba-1 has no heads: its channels are cut in so many parts, or in as many as divide both."""


def gated_delta_net(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Qwen3-Next and Qwen3.5: gated delta nets, with gated attention by heads in every fourth layer.

    Raises:
        InputError: a field is missing or unfit.
    """
    interval = reader.integer("full_attention_interval", default=4) or 4
    if not is_linear(reader, layer, lambda n: (n + 1) % interval != 0):
        return (heads(reader, family, layer),)
    return (delta_net_of(reader),)


def delta_net_of(reader: Reader) -> LinearMixer:
    """The gated delta net that every linear layer has.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden = reader.integer("hidden_size")
    keys, values = reader.integer("linear_num_key_heads"), reader.integer("linear_num_value_heads")
    key_dim, value_dim = reader.integer("linear_key_head_dim"), reader.integer("linear_value_head_dim")
    taps = reader.integer("linear_conv_kernel_dim")
    if not keys or values % keys:
        raise InputError(
            f"{reader.source}: linear_num_value_heads {values} must be a multiple of linear_num_key_heads {keys}"
        )
    attended = values * value_dim
    filtered = 2 * keys * key_dim + attended
    return _mixer(
        reader,
        heads=keys,
        key_dim=key_dim,
        value_dim=values // keys * value_dim,
        corrects=True,
        # Queries, keys, values and the output's gate; beside them two gates per head of values.
        inward=((hidden, filtered + attended + 2 * values),),
        attended=attended,
        filtered=filtered,
        filter_taps=taps,
        extra_parameters=filtered * taps + 2 * values + value_dim,
    )


def kimi_delta(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - as every hook
    """Kimi Linear: Kimi delta attention (KDA, arXiv:2510.26692), and latent attention; a gate on it in Kimi K3.

    Raises:
        InputError: a field is missing or unfit.
    """
    nested = Reader(_mapping(reader, "linear_attn_config"), reader.source)
    full = nested.listed("full_attn_layers", of=int)
    linear = nested.listed("kda_layers", of=int)
    if is_linear(reader, layer, lambda n: n + 1 not in full if full and linear else n == 0 or n % 4 != 0):
        return (delta_attention_of(reader),)
    plain = latent(reader)
    gated = reader.flag("mla_use_output_gate", default=False)
    return (plain.model_copy(update={"gated_output": "values"}) if gated else plain,)


def delta_attention_of(reader: Reader) -> LinearMixer:
    """The KDA that every linear layer has; its output's gate has a low rank, or all of it in Kimi K3.

    Raises:
        InputError: a field is missing or unfit.
    """
    nested = Reader(_mapping(reader, "linear_attn_config"), reader.source)
    hidden = reader.integer("hidden_size")
    head_dim = nested.integer("head_dim", default=reader.integer("linear_head_dim", most=MOST_HEADS))
    count = nested.integer("num_heads", default=reader.integer("linear_num_heads", most=MOST_HEADS))
    taps = nested.integer("short_conv_kernel_size", default=reader.integer("linear_conv_kernel_dim"))
    width = count * head_dim
    # Queries, keys and values, one gate per head, and the low ranks of forget and output gates.
    if nested.flag("use_full_rank_gate", default=False):
        return _delta_attention(
            reader, count, head_dim, taps, ((hidden, 4 * width + count + head_dim), (head_dim, width))
        )
    inward = ((hidden, 3 * width + count + 2 * head_dim), (head_dim, width), (head_dim, width))
    return _delta_attention(reader, count, head_dim, taps, inward)


def block_residuals(reader: Reader, layer: int) -> int:
    """Kimi K3: a norm and a query weigh the sums of earlier blocks before each half of a layer, and behind all."""
    if reader.optional("attn_res_block_size") is None:
        return 0
    halves = 3 if layer == layer_count(reader) - 1 else 2
    return halves * 2 * reader.integer("hidden_size")


def ling(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - as every hook
    """Ling: KDA with whole gates (version 3) or lightning attention (2.5, 2.6), and latent attention.

    Version 3's latent attention has one gate per head. The versions share a `model_type`; the convolution of KDA
    is told by `short_conv_kernel_size`, lightning attention by the groups of its norm.

    Raises:
        InputError: a field is missing or unfit.
    """
    is_lightning = (
        reader.optional("group_norm_size") is not None and reader.optional("short_conv_kernel_size") is None
    )
    group = reader.integer("layer_group_size", default=6) or 6
    if not is_linear(reader, layer, lambda n: (n + 1) % group != 0):
        full = latent(reader)
        return (full if is_lightning else full.model_copy(update={"gated_output": "head"}),)
    count, head_dim = reader.integer("num_attention_heads"), reader.integer("head_dim", default=128)
    if is_lightning:
        norms = 2 * head_dim if reader.flag("use_qk_norm", default=False) else 0
        return (_lightning(reader, count, head_dim, norms),)
    # A config that transformers wrote has the width of rotated keys in `head_dim`, and the true one beside it.
    head_dim = reader.integer("linear_head_dim", default=head_dim)
    hidden, width = reader.integer("hidden_size"), count * head_dim
    inward = ((hidden, 5 * width + count),)
    taps = reader.integer("short_conv_kernel_size", default=4)
    return (_delta_attention(reader, count, head_dim, taps, inward),)


def lightning(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """MiniMax-Text-01 and M1: lightning attention (arXiv:2501.08313), with attention by heads between.

    Raises:
        InputError: a field is missing or unfit.
    """
    kinds = reader.listed("attn_type_list", of=int)
    by_list = kinds is not None and layer < len(kinds)
    if not is_linear(reader, layer, lambda n: kinds[n] == 0 if kinds and by_list else n % 2 == 1):
        return (heads(reader, family, layer),)
    count = reader.integer("num_attention_heads")
    head_dim = reader.integer("head_dim", default=reader.integer("hidden_size") // max(1, count))
    return (_lightning(reader, count, head_dim, 0),)


def short_convolution(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """LFM2: a gated short convolution, with attention by heads between.

    Raises:
        InputError: a field is missing or unfit.
    """
    if not is_linear(reader, layer, None):
        return (heads(reader, family, layer),)
    hidden, taps = reader.integer("hidden_size"), reader.integer("conv_L_cache")
    bias = 5 * hidden if reader.flag("conv_bias", default=False) else 0
    return (
        _mixer(
            reader,
            heads=parts_of(hidden),
            inward=((hidden, 3 * hidden),),
            attended=hidden,
            filtered=hidden,
            filter_taps=taps,
            extra_parameters=hidden * taps + bias,
        ),
    )


def is_linear(reader: Reader, layer: int, usual: Callable[[int], bool] | None) -> bool:
    """Whether a layer keeps a state, by the config's list, or where it has none by `usual`.

    Raises:
        InputError: the list is too short or missing, or has a kind that the family does not.
    """
    kinds = reader.listed("layer_types", "layers_block_type", of=str)
    if kinds is None:
        if usual is None:
            raise InputError(f"{reader.source}: key layer_types is missing; add it")
        return usual(layer)
    if layer >= len(kinds):
        raise InputError(f"{reader.source}: layer_types has {len(kinds)} entries, none for layer {layer}")
    if kinds[layer] not in _LINEAR + _FULL:
        raise InputError(
            f"{reader.source}: layer_types has {shown(kinds[layer])}, which {reader.type} layers are not "
            f"(one of {', '.join(_LINEAR + _FULL)})"
        )
    return kinds[layer] in _LINEAR


def parts_of(channels: int) -> int:
    """Into how many parts channels without heads can be cut."""
    return gcd(channels, _RANKS_OF_CHANNELS) or 1


def _delta_attention(
    reader: Reader, count: int, head_dim: int, taps: int, inward: tuple[tuple[int, int], ...]
) -> LinearMixer:
    width = count * head_dim
    return _mixer(
        reader,
        heads=count,
        key_dim=head_dim,
        value_dim=head_dim,
        corrects=True,
        inward=inward,
        attended=width,
        filtered=3 * width,
        filter_taps=taps,
        # The filters, a bias per channel and a decay per head of the forget gate, the norm of one head.
        extra_parameters=3 * width * taps + width + count + head_dim,
    )


def _lightning(reader: Reader, count: int, head_dim: int, norms: int) -> LinearMixer:
    hidden, width = reader.integer("hidden_size"), count * head_dim
    return _mixer(
        reader,
        heads=count,
        key_dim=head_dim,
        value_dim=head_dim,
        # In the model's precision, as transformers and vLLM keep it, and not in FP32 as every other state.
        state_value_bytes=2,
        # Queries, keys, values and the output's gate.
        inward=((hidden, 4 * width),),
        attended=width,
        extra_parameters=width + norms,
    )


def _mixer(reader: Reader, **fields: Any) -> LinearMixer:
    return parse(LinearMixer, fields, reader.source)


def _mapping(reader: Reader, name: str) -> dict[str, Any]:
    value = reader.optional(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST_LAYERS:
        raise InputError(f"{reader.source}: {name} must be an object")
    return value
