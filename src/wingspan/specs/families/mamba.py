"""State spaces, Mamba and Mamba-2, between layers of attention, from a config."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.limits import MOST_EXPERTS, MOST_LAYERS
from wingspan.specs.families.experts import dense_of, experts_of
from wingspan.specs.families.family import Family
from wingspan.specs.families.linear import is_linear, parts_of
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import LinearMixer, Mixer
from wingspan.specs.model import DenseMlp, Experts, LayerKind
from wingspan.specs.reading import parse, shown


def granite_mamba(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Granite 4 H: Mamba-2, with attention by heads where `layer_types` says so.

    Raises:
        InputError: a field is missing or unfit.
    """
    if not is_linear(reader, layer, lambda _: True):
        return (heads(reader, family, layer),)
    count, inner = (
        reader.integer("mamba_n_heads"),
        reader.integer("mamba_expand") * reader.integer("hidden_size"),
    )
    said = reader.optional("mamba_d_head")
    head_dim = inner // max(1, count) if said in (None, "auto") else reader.integer("mamba_d_head")
    return (
        mamba_2(
            reader,
            count,
            head_dim,
            state=reader.integer("mamba_d_state"),
            groups=reader.integer("mamba_n_groups"),
            taps=reader.integer("mamba_d_conv"),
            biased=reader.flag("mamba_proj_bias", default=False),
            biased_filters=reader.flag("mamba_conv_bias", default=True),
        ),
    )


def nemotron_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Nemotron-H and Nemotron 3: each layer is one part, Mamba-2, attention, experts or an MLP, behind one norm.

    Raises:
        InputError: a field is missing or unfit, or the layer is of no such part.
    """
    norm, part = reader.integer("hidden_size"), _nemotron_part(reader, layer)
    if part == "moe":
        return LayerKind(experts=_nemotron_experts(reader), norm_parameters=norm)
    if part == "mlp":
        return LayerKind(dense=_nemotron_mlp(reader), norm_parameters=norm)
    if part == "full_attention":
        # Its projections have no biases, whatever the config says.
        plain = heads(reader, family, layer).model_copy(update={"extra_parameters": 0, "window_tokens": None})
        return LayerKind(mixers=(plain,), norm_parameters=norm)
    mixer = mamba_2(
        reader,
        reader.integer("mamba_num_heads"),
        reader.integer("mamba_head_dim"),
        state=reader.integer("ssm_state_size"),
        groups=reader.integer("mamba_n_groups", "n_groups"),
        taps=reader.integer("mamba_d_conv", "conv_kernel"),
        biased=reader.flag("use_bias", default=False),
        biased_filters=reader.flag("mamba_conv_bias", "use_conv_bias", default=True),
    )
    return LayerKind(mixers=(mixer,), norm_parameters=norm)


_PARTS = {
    "M": "linear_attention",
    "E": "moe",
    "*": "full_attention",
    "-": "mlp",
    "mamba": "linear_attention",
    "attention": "full_attention",
}
"""Letters of `hybrid_override_pattern`, and older names, of the parts that layers are."""


def _nemotron_part(reader: Reader, layer: int) -> str:
    pattern = reader.optional("hybrid_override_pattern")
    listed = reader.listed("layers_block_type", "layer_types", of=str)
    parts = listed if listed is not None else list(pattern) if isinstance(pattern, str) else None
    if parts is None:
        raise InputError(
            f"{reader.source}: key layers_block_type or hybrid_override_pattern is missing; add it"
        )
    if layer >= len(parts):
        raise InputError(f"{reader.source}: {len(parts)} parts are listed, none for layer {layer}")
    part = _PARTS.get(parts[layer], parts[layer])
    if part not in _PARTS.values():
        known = ", ".join(sorted(set(_PARTS) | set(_PARTS.values())))
        raise InputError(f"{reader.source}: layer {layer} is {shown(part)}, which is none of {known}")
    return part


def _nemotron_experts(reader: Reader) -> Experts:
    """Experts of two matrices that take a projected row where `moe_latent_size` says how wide it is."""
    hidden, latent = reader.integer("hidden_size"), reader.integer("moe_latent_size", default=0)
    shared = reader.integer("moe_shared_expert_intermediate_size")
    biases = shared + hidden + (latent + hidden if latent else 0)
    groups = reader.integer("n_group", default=1) or 1
    return parse(
        Experts,
        {
            "count": reader.integer("n_routed_experts", "num_local_experts", most=MOST_EXPERTS),
            "per_token": reader.integer("num_experts_per_tok"),
            "intermediate": reader.integer("moe_intermediate_size"),
            "gated": False,
            "shared_intermediate": shared,
            "shared_extra_parameters": biases if reader.flag("mlp_bias", default=False) else 0,
            "row_width": latent or None,
            "groups": groups,
            "groups_per_token": min(groups, reader.integer("topk_group", default=groups) or groups),
        },
        reader.source,
    )


def _nemotron_mlp(reader: Reader) -> DenseMlp:
    width = reader.integer("intermediate_size")
    bias = width + reader.integer("hidden_size") if reader.flag("mlp_bias", default=False) else 0
    return parse(DenseMlp, {"intermediate": width, "gated": False, "extra_parameters": bias}, reader.source)


def jamba_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """Jamba: Mamba, with attention by heads in every eighth layer, and experts in every second.

    Raises:
        InputError: a field is missing or unfit.
    """

    def is_at(name: str) -> bool:
        period, offset = reader.integer(f"{name}_period", most=MOST_LAYERS), reader.integer(f"{name}_offset")
        if offset >= period:
            raise InputError(
                f"{reader.source}: {name}_offset {offset} must be less than {name}_period {period}"
            )
        return layer % period == offset

    mixer = heads(reader, family, layer) if is_at("attn_layer") else _mamba_1(reader)
    sparse = is_at("expert_layer")
    return LayerKind(
        mixers=(mixer,),
        dense=None if sparse else dense_of(reader, gated=True),
        experts=experts_of(reader, family) if sparse else None,
        norm_parameters=2 * reader.integer("hidden_size"),
    )


def mamba_2(
    reader: Reader,
    count: int,
    head_dim: int,
    *,
    state: int,
    groups: int,
    taps: int,
    biased: bool,
    biased_filters: bool,
) -> LinearMixer:
    """Mamba-2 (arXiv:2405.21060): a state of `state x head_dim` for each of `count` heads.

    Args:
        reader: the config.
        count: heads.
        head_dim: width of one.
        state: values that a head keeps for each of its channels.
        groups: groups of heads that share what leads into and out of the state.
        taps: of the convolution.
        biased: the projections have biases.
        biased_filters: the convolution has.

    Raises:
        InputError: a figure is unfit.
    """
    hidden, inner = reader.integer("hidden_size"), count * head_dim
    filtered = inner + 2 * groups * state
    led_in = inner + filtered + count
    bias = (led_in + hidden if biased else 0) + (filtered if biased_filters else 0)
    return parse(
        LinearMixer,
        {
            "heads": count,
            "key_dim": state,
            "value_dim": head_dim,
            "inward": ((hidden, led_in),),
            "attended": inner,
            "filtered": filtered,
            "filter_taps": taps,
            # Steps, decays and skips of each head, the filters, the norm before the output.
            "extra_parameters": 3 * count + filtered * taps + inner + bias,
        },
        reader.source,
    )


def _mamba_1(reader: Reader) -> LinearMixer:
    """Mamba (arXiv:2312.00752), with norms of what its steps and its state are led by."""
    hidden = reader.integer("hidden_size")
    inner, state = reader.integer("mamba_expand") * hidden, reader.integer("mamba_d_state")
    said, taps = reader.optional("mamba_dt_rank"), reader.integer("mamba_d_conv")
    rank = -(-hidden // 16) if said in (None, "auto") else reader.integer("mamba_dt_rank")
    parts = parts_of(inner)
    bias = 2 * inner + hidden if reader.flag("mamba_proj_bias", default=False) else 0
    bias += inner if reader.flag("mamba_conv_bias", default=True) else 0
    return parse(
        LinearMixer,
        {
            "heads": parts,
            "key_dim": state,
            "value_dim": inner // parts,
            "inward": ((hidden, 2 * inner), (inner, rank + 2 * state), (rank, inner)),
            "attended": inner,
            "filtered": inner,
            "filter_taps": taps,
            # Decays of every state, the filters, skip and step of every channel, norms of what leads in.
            "extra_parameters": inner * (state + taps + 2) + rank + 2 * state + bias,
        },
        reader.source,
    )
