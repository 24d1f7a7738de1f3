"""A tiny random configuration of every architecture whose experts transformers' registry serves.

The default configuration of each is shrunk by the names of its fields, so that a new architecture needs no line here
unless it breaks a rule; of the layers one of each kind stays. Small index sizes and sliding windows make sparse and
local attention really leave tokens out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, PreTrainedConfig

from wingspan.errors import InputError
from wingspan.models.classes import text_class

VOCABULARY = 96
CONTEXT = 512
_FEWEST_LAYERS, _MOST_LAYERS = 4, 6
_EXPERTS = r"num_(local_)?experts|n_routed_experts|moe_num_experts"
_TOP_K = r"num_experts_per_tok(en)?|moe_k|moe_top_?k|top_k_experts"

_RULES: list[tuple[str, int | None]] = [
    (r"(bos|eos|pad|eod|sep)_token_id", None),
    (r"vocab_size|unpadded_vocab_size|vocab_size_per_layer_input", VOCABULARY),
    (r"ngram_vocab_size_base|make_ngram_vocab_size_divisible_by|split_ngram_parts", 8),
    (r"max_position_embeddings|model_max_length|max_seq_len", CONTEXT),
    (r"((text|out|moe)_)?hidden_size|d_model|ple_embed_dim|adapter_(in|out)_dim|adapter_input_size", 32),
    (r"hidden_size_per_layer_input|router_hidden_size|moe_latent_size", 8),
    (r"(moe|shared_experts?|moe_shared_expert|shared)_intermediate_size|expert_ffn_hidden_size", 24),
    (r"share_expert_dim", 24),
    (r".*intermediate_size(_mlp)?|ffn_hidden_size", 48),
    (r"(swa_)?num_key_value_heads|linear_num_key_heads", 2),
    (r".*(num|n)_(\w+_)?heads(_per_layer)?", 4),
    (r"qk_head_dim", 16),
    (r".*head_dim|mamba_d_head|kv_channels", 8),
    (r".*(lora|norm|dt)_rank|hc_lowrank", 16),
    (r"index_topk", 5),
    (r"index_topk_blocks", 2),
    (r"sliding_window(_size)?", 6),
    (r"((mamba|attention)_)?chunk_size|(index_)?block_size|floor_scale", 4),
    (r"mamba_d_state|ssm_state_size|rel_extent|rotary_dim", 8),
    (r"d_rel|log_scaling_n_floor|heads_per_ngram", 4),
    (r"n_groups|o_groups|layer_group_size|sliding_window_pattern|global_attn_every_n_layers", 2),
    (r"first_k_dense_replace|num_dense_layers|max_window_layers", 1),
    (r"n_layers_per_attn_res_block|zero_expert_num", 2),
]  # fmt: skip
"""Patterns of whole field names and their small values; the first that fits counts."""

_LOCAL_AND_FULL = {"layer_types": ["full_attention", "sliding_attention"] * 2}

_EXCEPTIONS: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 500000.0}},
    "deepseek_ocr2_text": {
        "num_hidden_layers": 4, "mlp_layer_types": ["dense"] + ["sparse"] * 3, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1,
    },
    "deepseek_v4": {
        "head_dim": 16, "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
    },
    "doge": {"is_moe": True},
    "dots1": _LOCAL_AND_FULL | {"n_shared_experts": 1, "sliding_window": 6},
    "dots3_note_text": {"head_dim": 32, "qk_nope_head_dim": 16},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [24, 16],
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [1, 1, 2]},
    },
    "gemma4_text": {
        "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2,
        "per_layer_config": {"01": {"head_dim": 16}, "03": {"head_dim": 16}}, "pad_token_id": 0,
        "enable_moe_block": True, "moe_intermediate_size": 24,
    },
    "glm4v_moe_text": {
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2],
        },
    },
    "glm5_next_text": {"index_topk": 4, "index_kpool": 2},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"] * 2},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling_vision": {"patch_size": 4},
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 3, "attn_layer_offset": 2, "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "laguna": _LOCAL_AND_FULL | {"num_attention_heads_per_layer": [4, 6, 4, 6]},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": {
        "num_hidden_layers": 4, "interleave_moe_layer_step": 2, "moe_layers": [1, 3], "no_rope_layers": [1, 1, 1, 0],
        "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
    },
    "longcat_flash": {"num_layers": 3},
    "mellum": _LOCAL_AND_FULL,
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "mistral4": {"head_dim": 16},
    "mixtral": {"sliding_window": 6},
    "muse_spark": {"out_hidden_size": 32, "projector_hidden_size": 32},
    "muse_spark_audio": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "nemotron_h": {
        "num_hidden_layers": 6, "layers_block_type": ["linear_attention", "moe", "full_attention", "moe", "mlp", "moe"],
    },
    "qwen2_moe": _LOCAL_AND_FULL | {"use_sliding_window": True},
    "qwen3_moe": {"use_sliding_window": True, "sliding_window": 6},
    "qwen4_exp_text": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
        "indexer_compress_ratio": 2, "ple_layer_ids": [1], "ple_embed_dim": 32, "heads_per_ngram": 4,
        "eos_token_id": VOCABULARY - 1,
    },
    "nemotron_h_omni": {"vision_hidden_size": 32, "projector_hidden_size": 32},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 90, "audio_start_token_id": 91},
    "radio": {"video_temporal_patch_size": 2, "num_hidden_layers": 2},
    "step3p5": _LOCAL_AND_FULL | {
        "num_hidden_layers": 4, "mlp_layer_types": ["dense"] + ["sparse"] * 3, "sliding_window": 6, "pad_token_id": 0,
        "num_sliding_attention_heads": 6, "swiglu_limits": [None, 0.0, 0.05, None],
        "swiglu_limits_shared": [None] * 3 + [0.05],
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""What the rules get wrong, by the model type of the text configuration."""


@dataclass(frozen=True)
class Sizes:
    """What a checkpoint is drawn with."""

    experts: int = 6
    top_k: int = 2


def tiny_configuration(model_type: str, sizes: Sizes = Sizes()) -> PreTrainedConfig:
    """The default configuration of a model type, shrunk."""
    default = CONFIG_MAPPING[model_type]()
    text = default.get_text_config()
    small = _shrunk(text, sizes)
    if text is default:
        return CONFIG_MAPPING[model_type](**small)
    parts: dict[str, Any] = {
        name: _shrunk(part, sizes) for name in default.sub_configs if (part := getattr(default, name, None))
    }
    return CONFIG_MAPPING[model_type](**parts, **_EXCEPTIONS.get(model_type, {}))


def write_checkpoint(
    config: PreTrainedConfig,
    folder: Path,
    seed: int,
    dtype: torch.dtype = torch.float32,
    *,
    sharded: bool = False,
) -> Path:
    """Save a model with weights that let every part matter; the configuration alone where it makes no text."""
    try:
        found = text_class(config)
    except InputError:
        config.save_pretrained(folder)
        return folder
    torch.manual_seed(seed)
    model: Any = found.model._from_config(found.config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.1)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": "60KB"} if sharded else {}))
    part = next((name for name in config.sub_configs if getattr(config, name, None) is found.config), None)
    if part is not None and part != "text_config":
        _as_part(folder, config, part.removesuffix("config").replace("_", "."))
    return folder


def _as_part(folder: Path, config: PreTrainedConfig, prefix: str) -> None:
    """Make a part's checkpoint that of the whole: every name with the part's before it."""
    for file in folder.glob("*.safetensors"):
        tensors = {prefix + name: tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = json.loads(index.read_text())
        listed["weight_map"] = {prefix + name: file for name, file in listed["weight_map"].items()}
        index.write_text(json.dumps(listed))
    config.save_pretrained(folder)


def _shrunk(config: PreTrainedConfig, sizes: Sizes) -> dict[str, Any]:
    """Values for the constructor of a configuration: what the rules change of the given one."""
    values = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    layers_name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    layers = values.get(layers_name, 0)
    kept = _layers_to_keep(values, layers)
    own = _EXCEPTIONS.get(config.model_type, {})

    def shrink(name: str, value: Any) -> Any:
        base = values.get(name)
        new = own.get(name, _small(name, base if isinstance(base, int) else value, values, sizes))
        # A layer with another value than most keeps its proportion.
        proportional = isinstance(new, int) and isinstance(base, int) and value != base
        return max(2, new * value // base) if proportional else new

    small: dict[str, Any] = {}
    for name, value in values.items():
        if name in config.sub_configs:
            small[name] = _shrunk(getattr(config, name), sizes)
        elif isinstance(value, list) and layers and len(value) == layers:
            small[name] = [shrink(name, value[k]) for k in kept]
        elif _is_per_layer(value):
            places = {f"{n:02d}": value.get(f"{k:02d}") for n, k in enumerate(kept)}
            small[name] = {
                n: {i: shrink(i, v) for i, v in part.items()} for n, part in places.items() if part
            }
        elif (new := shrink(name, value)) != value:
            small[name] = new
    if layers:
        small[layers_name] = len(kept)
    if "moe_layer_end_index" in values:
        small["moe_layer_end_index"] = len(kept) - 1
    return small | own


def _layers_to_keep(values: dict[str, Any], layers: int) -> list[int]:
    """The first layer of each kind, and more in order where these are few."""
    lists = [v for v in values.values() if isinstance(v, list) and len(v) == layers]
    tables = [v for v in values.values() if _is_per_layer(v)]
    seen: dict[str, int] = {}
    for number in range(layers):
        kind = str([v[number] for v in lists] + [v.get(f"{number:02d}") for v in tables])
        seen.setdefault(kind, number)
    kinds = sorted(seen.values())[:_MOST_LAYERS]
    # The last kind is the commonest: behind it come the layers with experts.
    more = range(max(kinds) + 1, layers) if kinds else range(0)
    return kinds + list(more)[: max(0, _FEWEST_LAYERS - len(kinds))]


def _is_per_layer(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(str(key).isdecimal() for key in value)


def _small(name: str, value: Any, values: dict[str, Any], sizes: Sizes) -> Any:
    if re.fullmatch(_EXPERTS, name):
        return sizes.experts
    if re.fullmatch(_TOP_K, name):
        return sizes.top_k
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if re.fullmatch("n_group|num_expert_group", name) and value > 1:
        return 2
    if name == "topk_group" and value > 1:
        return 1 if sizes.experts // 2 >= sizes.top_k else 2
    if re.fullmatch("(swa_)?num_key_value_heads", name) and value == values.get(
        name.replace("key_value", "attention")
    ):
        return 4
    for pattern, small in _RULES:
        if re.fullmatch(pattern, name):
            return small if value else value
    return value
