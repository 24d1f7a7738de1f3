"""From a transformers `config.json` to a `ModelSpec`, without transformers.

Most families share field names under a few spellings; `Family` holds what the file does not say.
A config of a family that is not listed is refused, because its parameters would be guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_EXPERTS, MOST_LAYERS, MOST_WIDTH
from wingspan.specs.model import Experts, HeadAttention, LatentAttention, ModelSpec
from wingspan.specs.precision import Precision
from wingspan.specs.reading import parse


@dataclass(frozen=True)
class Family:
    """What a `model_type` implies beyond its config's fields (read off transformers 5.23's module sizes)."""

    latent: bool = False
    """Multi-head latent attention."""
    query_key_norm: Literal["none", "head", "width"] = "none"
    """RMSNorm of queries and keys: over one head, or over all heads together."""
    attention_bias: bool | None = None
    """Biases of the projections; None: as the config's `attention_bias` says, False where it is silent."""
    output_bias: bool = True
    """Whether the output projection takes the bias too."""
    sinks: bool = False
    """One learned logit per head."""
    windowed_by_default: bool = False
    """Every other layer, from the first, is windowed where the config has no `layer_types`."""
    expert_bias: bool = False
    router_bias: bool = False
    """A bias per expert that is a parameter (a buffer, as DeepSeek-V3's, is not)."""
    layer_norm: bool = False
    """Norms have a bias too."""
    shared_gate: bool = False
    """The shared expert is weighted by a gate of its own."""
    one_shared: bool = False
    """One shared expert as wide as a routed one, unnamed in the config."""
    tied_by_default: bool = False
    dense_by_default: int = 0
    """Layers without experts, from the first, where the config names none."""


FAMILIES = {
    "wingspan_moe": Family(dense_by_default=3),
    "mixtral": Family(),
    "phimoe": Family(layer_norm=True),
    "granitemoe": Family(),
    "olmoe": Family(query_key_norm="width"),
    "flex_olmo": Family(query_key_norm="width"),
    "qwen2_moe": Family(attention_bias=True, output_bias=False, shared_gate=True),
    "qwen3_moe": Family(query_key_norm="head"),
    "deepseek_v2": Family(latent=True),
    "deepseek_v3": Family(latent=True, dense_by_default=3),
    "kimi_k2": Family(latent=True, dense_by_default=1),
    "dots1": Family(query_key_norm="head"),
    "glm4_moe": Family(output_bias=False, dense_by_default=1),
    "glm4_moe_lite": Family(latent=True, dense_by_default=1),
    "gpt_oss": Family(
        attention_bias=True, sinks=True, windowed_by_default=True, expert_bias=True, router_bias=True
    ),
    "llama4_text": Family(one_shared=True),
    "minimax_m2": Family(query_key_norm="width"),
    "solar_open": Family(output_bias=False),
    "ernie4_5_moe": Family(router_bias=True, tied_by_default=True, dense_by_default=1),
    "hy_v3": Family(query_key_norm="head", dense_by_default=1),
}


def model_from_config(config: Mapping[str, Any], source: str) -> ModelSpec:
    """Sizes of the model that a `config.json` describes.

    Args:
        config: its content; a multimodal model's text part (`text_config`) is taken.
        source: where it came from; errors start with it.

    Raises:
        InputError: the family is unknown, the model has no experts, or a field is missing or unfit.
    """
    if "text_config" in config and isinstance(config["text_config"], Mapping):
        return model_from_config({**_shared_fields(config), **config["text_config"]}, source)
    reader = _Reader(config, source)
    return _model(reader, reader.family())


def _shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("quantization_config", "dtype", "torch_dtype", "tie_word_embeddings", "name")
    return {name: config[name] for name in names if name in config}


class _Reader:
    """Fields of one config under their several spellings."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config = config
        self.source = source

    def family(self) -> Family:
        kind = self.config.get("model_type")
        if not isinstance(kind, str):
            raise InputError(
                f'{self.source}: no "model_type"; is this the config.json of a transformers model?'
            )
        if not any(self.config.get(key) for key in _EXPERTS):
            raise InputError(
                f"{self.source}: {kind} has no experts (none of {', '.join(_EXPERTS)}); "
                "Wingspan plans Mixture-of-Experts models"
            )
        if kind not in FAMILIES:
            raise InputError(
                f"{self.source}: model_type {kind!r} is not among the families whose sizes are known "
                f"({', '.join(sorted(FAMILIES))}); if it has the modules of one of them, write that model_type"
            )
        return FAMILIES[kind]

    def optional(self, *names: str) -> Any:
        """The first of these fields that is present and not null."""
        return next((self.config[n] for n in names if self.config.get(n) is not None), None)

    def integer(self, *names: str, default: int | None = None, most: int = MOST_WIDTH) -> int:
        """The first of these fields, a whole number from 0 to `most`."""
        value = self.optional(*names)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"{self.source}: key {names[0]} is missing; add it")
        # Some configs hold one number per layer; they are read where all layers agree.
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{self.source}: {names[0]} = {value!r} must be a whole number, 0 or more")
        if value > most:
            raise InputError(f"{self.source}: {names[0]} = {value:,} is more than {most:,}")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        value = self.optional(*names)
        return default if value is None else bool(value)

    def listed(self, *names: str, of: type) -> list[Any] | None:
        """The first of these fields, a list of such values; None where there is none."""
        value = self.optional(*names)
        if value is None:
            return None
        alike = isinstance(value, list) and all(isinstance(v, of) for v in value)
        if not alike or len(value) > MOST_LAYERS:
            kind = "texts" if of is str else "whole numbers"
            raise InputError(
                f"{self.source}: {names[0]} must be a list of at most {MOST_LAYERS:,} {kind}, one a layer"
            )
        return list(value)


_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk")
_WIDTH = ("moe_intermediate_size", "intermediate_size")
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def _model(reader: _Reader, family: Family) -> ModelSpec:
    hidden = reader.integer("hidden_size")
    layers = reader.integer("num_hidden_layers", most=MOST_LAYERS)
    attention = _latent(reader) if family.latent else _heads(reader, family, hidden, layers)
    experts = _experts(reader, family, hidden)
    dense = _dense_layers(reader, family, layers)
    norms = (2 * layers + 1) * hidden * (2 if family.layer_norm else 1)
    bias = reader.flag("use_bias", "mlp_bias", default=False)
    width = reader.integer("intermediate_size_mlp", "intermediate_size", default=0)
    weights, expert_weights = _precisions(reader)
    return parse(
        ModelSpec,
        {
            "name": str(reader.optional("name", "_name_or_path") or reader.config["model_type"]),
            "source": str(reader.optional("source") or reader.source),
            "hidden": hidden,
            "vocabulary": reader.integer("vocab_size"),
            "layers": layers,
            "dense_layers": dense,
            "dense_intermediate": width,
            "attention": attention.model_dump(),
            "experts": experts.model_dump(),
            "tied_embeddings": reader.flag("tie_word_embeddings", default=family.tied_by_default),
            "norm_parameters": norms,
            "dense_extra_parameters": (experts.matrices - 1) * width + hidden if bias else 0,
            "head_extra_parameters": reader.integer("vocab_size")
            if reader.flag("lm_head_bias", "use_bias", default=False)
            else 0,
            "weights": weights,
            "expert_weights": expert_weights,
            "max_context": reader.optional("max_position_embeddings"),
        },
        reader.source,
    )


def _heads(reader: _Reader, family: Family, hidden: int, layers: int) -> HeadAttention:
    heads = reader.integer("num_attention_heads")
    kv_heads = reader.integer("num_key_value_heads", default=heads)
    head_dim = reader.integer("head_dim", default=hidden // max(1, heads))
    widths = {"query": heads * head_dim, "key": kv_heads * head_dim}
    norm = reader.flag("use_qk_norm", default=False) and reader.config["model_type"] == "glm4_moe"
    extra = {"none": 0, "head": 2 * head_dim, "width": widths["query"] + widths["key"]}[
        "head" if norm else family.query_key_norm
    ]
    biased = family.attention_bias
    if biased is None:
        biased = reader.flag("attention_bias", "qkv_bias", "use_bias", default=False)
    if biased:
        extra += widths["query"] + 2 * widths["key"] + (hidden if family.output_bias else 0)
    if family.sinks:
        extra += heads
    window, windowed = _windows(reader, family, layers)
    return parse(
        HeadAttention,
        {
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "extra_parameters": extra,
            "window_tokens": window,
            "windowed_layers": windowed,
        },
        reader.source,
    )


def _latent(reader: _Reader) -> LatentAttention:
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


def _windows(reader: _Reader, family: Family, layers: int) -> tuple[int | None, list[int]]:
    """The window, and the layers that have it."""
    window = reader.integer("sliding_window", "attention_chunk_size", default=0, most=MOST_CONTEXT) or None
    if window is None or reader.config.get("use_sliding_window") is False:
        return None, []
    kinds = reader.listed("layer_types", of=str)
    if kinds is None:
        if family.windowed_by_default:
            return window, list(range(0, layers, 2))
        return (window, list(range(layers))) if reader.config["model_type"] in _ALL_WINDOWED else (None, [])
    windowed = [n for n, kind in enumerate(kinds) if kind in ("sliding_attention", "chunked_attention")]
    return (window, windowed) if windowed else (None, [])


_ALL_WINDOWED = ("mixtral", "phimoe")
"""Families whose `sliding_window`, where set, holds in every layer."""


def _experts(reader: _Reader, family: Family, hidden: int) -> Experts:
    count = reader.integer(*_EXPERTS, most=MOST_EXPERTS)
    width = reader.integer(*_WIDTH)
    one = 1 if family.one_shared else 0
    shared = width * reader.integer(*_SHARED_COUNT, default=one, most=MOST_EXPERTS)
    if reader.optional("shared_expert_intermediate_size") is not None:
        shared = reader.integer("shared_expert_intermediate_size")
    groups = reader.integer("n_group", default=1) or 1
    gated = reader.flag("gated_experts", default=reader.config["model_type"] != "wingspan_moe")
    shared_bias = reader.flag("use_bias", "mlp_bias", default=False) and shared > 0
    return parse(
        Experts,
        {
            "count": count,
            "per_token": reader.integer(*_TOP_K),
            "intermediate": width,
            "gated": gated,
            "bias": family.expert_bias,
            "shared_intermediate": shared,
            "shared_extra_parameters": (hidden if family.shared_gate else 0)
            + ((3 if gated else 2) - 1) * shared * shared_bias
            + hidden * shared_bias,
            "router_extra_parameters": count if family.router_bias else 0,
            "groups": groups,
            "groups_per_token": min(groups, reader.integer("topk_group", default=groups) or groups),
        },
        reader.source,
    )


def _dense_layers(reader: _Reader, family: Family, layers: int) -> list[int]:
    """Numbers of the layers without experts, by whichever of the families' ways the config says it."""
    kinds = reader.listed("mlp_layer_types", of=str)
    if kinds is not None:
        return [n for n, kind in enumerate(kinds) if kind == "dense"]
    named = reader.listed("moe_layers", of=int)
    if named is not None:
        return [n for n in range(layers) if n not in set(named)]
    step = reader.integer("interleave_moe_layer_step", "decoder_sparse_step", default=1) or 1
    if isinstance(reader.optional("moe_layer_freq", "moe_layer_interval"), list):
        each = reader.listed("moe_layer_freq", "moe_layer_interval", of=int) or []
        return [n for n, sparse in enumerate(each) if not sparse]
    frequency = reader.integer("moe_layer_freq", "moe_layer_interval", default=1) or 1
    start = reader.integer("first_k_dense_replace", "moe_layer_start_index", default=family.dense_by_default)
    # -1 stands for the last layer.
    to_the_end = reader.optional("moe_layer_end_index") in (None, -1)
    last = layers - 1 if to_the_end else reader.integer("moe_layer_end_index")
    only_mlp = set(reader.listed("mlp_only_layers", of=int) or ())
    offset = 1 if reader.config["model_type"] == "ernie4_5_moe" else 0
    return [
        n
        for n in range(layers)
        if n < start or n > last or n in only_mlp or (n + 1) % step or (n + offset) % frequency
    ]


_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def _precisions(reader: _Reader) -> tuple[Precision, Precision]:
    """Read the published precision of all weights but the experts, and that of the experts."""
    dtype = reader.optional("dtype", "torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"{reader.source}: dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    plain = Precision(_DTYPES[dtype])
    quantization = reader.optional("quantization_config")
    if quantization is None:
        return plain, plain
    if not isinstance(quantization, Mapping):
        raise InputError(f"{reader.source}: quantization_config = {quantization!r} must be an object")
    method = quantization.get("quant_method")
    if method == "fp8":
        return Precision.FP8, Precision.FP8
    if method == "mxfp4":
        return plain, Precision.FP4
    raise InputError(
        f"{reader.source}: quantization_config.quant_method {method!r} is not known (fp8, mxfp4 are); "
        "remove quantization_config and give the precision of the weights in the workload"
    )
