"""Experts and dense MLPs, and which layers have them, from a config."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.limits import MOST_EXPERTS, MOST_LAYERS
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.model import DenseMlp, Experts
from wingspan.specs.reading import parse

EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
"""Spellings of how many experts a layer has."""
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
)
_WIDTH = ("moe_intermediate_size", "intermediate_size")
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim")
"""Inner width of all shared experts together."""

_DENSE_WIDTH = (
    "intermediate_size_mlp",
    "prefix_dense_intermediate_size",
    "dense_intermediate_size",
    "intermediate_size",
)
_FIRST_DENSE = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
"""Spellings of how many layers before the first with experts have none."""


def layer_count(reader: Reader) -> int:
    """How many layers there are.

    Raises:
        InputError: the number is missing or unfit.
    """
    parts = reader.optional("layers_block_type", "hybrid_override_pattern")
    if isinstance(parts, list | str) and 0 < len(parts) <= MOST_LAYERS:
        return len(parts)
    return reader.integer("num_hidden_layers", "n_layers", "num_layers", most=MOST_LAYERS)


def experts_of(reader: Reader, family: Family) -> Experts:
    """The experts of each MoE layer.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden = reader.integer("hidden_size")
    count = reader.integer(*EXPERTS, most=MOST_EXPERTS)
    width = reader.integer(*_WIDTH)
    one = 1 if family.one_shared else 0
    each = reader.integer("shared_experts_intermediate_size", default=width)
    shared = each * reader.integer(*_SHARED_COUNT, default=one, most=MOST_EXPERTS)
    if reader.optional(*_SHARED_WIDTH) is not None:
        shared = reader.integer(*_SHARED_WIDTH)
    groups = reader.integer("n_group", "num_expert_group", default=1) or 1
    row = reader.integer("moe_hidden_size", "routed_expert_hidden_size", default=0)
    gated = reader.flag("gated_experts", default=reader.type != "wingspan_moe")
    shared_bias = reader.flag("use_bias", "mlp_bias", default=False) and shared > 0
    return parse(
        Experts,
        {
            "count": count,
            "per_token": reader.integer(*TOP_K),
            "intermediate": width,
            "gated": gated,
            "bias": family.expert_bias,
            "shared_intermediate": shared,
            "shared_extra_parameters": (hidden if family.shared_gate else 0)
            + ((3 if gated else 2) - 1) * shared * shared_bias
            + hidden * shared_bias,
            # A bias, and a norm of what the experts give back.
            "router_extra_parameters": (count if family.router_bias else 0)
            + row * reader.flag("latent_moe_use_norm", default=False),
            "row_width": row or None,
            "groups": groups,
            "groups_per_token": min(groups, reader.integer("topk_group", default=groups) or groups),
        },
        reader.source,
    )


def dense_of(reader: Reader, *, gated: bool) -> DenseMlp:
    """The MLP of a layer without experts.

    Raises:
        InputError: its width is missing or unfit.
    """
    width = reader.integer(*_DENSE_WIDTH)
    bias = reader.flag("use_bias", "mlp_bias", default=False)
    extra = (2 if gated else 1) * width + reader.integer("hidden_size") if bias else 0
    return parse(DenseMlp, {"intermediate": width, "gated": gated, "extra_parameters": extra}, reader.source)


def dense_layers(reader: Reader, family: Family, layers: int) -> frozenset[int]:
    """Numbers of the layers without experts, by whichever of the families' ways the config says it.

    Raises:
        InputError: a layer that is not there is named.
    """
    found = frozenset(_named_dense(reader, family, layers))
    outside = [layer for layer in found if not 0 <= layer < layers]
    if outside:
        raise InputError(f"{reader.source}: dense layer {outside[0]} is not among layers 0..{layers - 1}")
    return found


def _named_dense(reader: Reader, family: Family, layers: int) -> list[int]:
    kinds = reader.listed("mlp_layer_types", of=str)
    if kinds is not None:
        return [n for n, kind in enumerate(kinds) if kind == "dense"]
    named = reader.listed("moe_layers", of=int)
    if named is not None:
        return [n for n in range(layers) if n not in set(named)]
    enumerated = reader.optional("moe_layers_enum")
    if enumerated is not None:
        with_experts = _numbers(reader, enumerated)
        return [n for n in range(layers) if n not in with_experts]
    step = reader.integer("interleave_moe_layer_step", "decoder_sparse_step", default=1) or 1
    if isinstance(reader.optional("moe_layer_freq", "moe_layer_interval"), list):
        each = reader.listed("moe_layer_freq", "moe_layer_interval", of=int) or []
        return [n for n, sparse in enumerate(each) if not sparse]
    frequency = reader.integer("moe_layer_freq", "moe_layer_interval", default=1) or 1
    start = reader.integer(*_FIRST_DENSE, default=family.dense_by_default)
    # -1 stands for the last layer.
    to_the_end = reader.optional("moe_layer_end_index") in (None, -1)
    last = layers - 1 if to_the_end else reader.integer("moe_layer_end_index")
    only_mlp = set(reader.listed("mlp_only_layers", of=int) or ())
    offset = 1 if reader.type == "ernie4_5_moe" else 0
    return [
        n
        for n in range(layers)
        if n < start or n > last or n in only_mlp or (n + 1) % step or (n + offset) % frequency
    ]


def _numbers(reader: Reader, enumerated: object) -> set[int]:
    """Layers that are listed, or written with commas between."""
    items = enumerated.split(",") if isinstance(enumerated, str) else enumerated
    if not isinstance(items, list) or not all(str(item).strip().isdecimal() for item in items):
        raise InputError(f"{reader.source}: moe_layers_enum must be numbers of layers, with commas between")
    return {int(item) for item in items}
