"""Small random checkpoints of real architectures, in the Hugging Face format."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

_COMMON = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "intermediate_size": 48,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}


def configurations() -> dict[str, PreTrainedConfig]:
    """Six experts each, so that 4 ranks divide them unevenly."""
    return {
        "mixtral": MixtralConfig(**_COMMON, num_key_value_heads=2, num_local_experts=6, num_experts_per_tok=2),
        "qwen3_moe": Qwen3MoeConfig(
            **_COMMON, num_key_value_heads=2, head_dim=8, num_experts=6, num_experts_per_tok=2,
            moe_intermediate_size=24, mlp_only_layers=[0],
        ),
        "deepseek_v3": DeepseekV3Config(
            **_COMMON, num_key_value_heads=4, n_routed_experts=6, num_experts_per_tok=3, moe_intermediate_size=16,
            first_k_dense_replace=1, n_group=2, topk_group=1, q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8,
            qk_nope_head_dim=8, v_head_dim=8, n_shared_experts=1,
        ),
        "olmoe": OlmoeConfig(**_COMMON, num_key_value_heads=4, num_experts=6, num_experts_per_tok=2),
        "gpt_oss": GptOssConfig(
            **_COMMON, num_key_value_heads=2, head_dim=8, num_local_experts=6, num_experts_per_tok=2,
            sliding_window=16, layer_types=["sliding_attention", "full_attention"],
        ),
    }  # fmt: skip


def write(config: PreTrainedConfig, folder: Path, seed: int = 0, **save_options: object) -> Path:
    """A model with weights that let every part matter, saved by transformers itself."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.1)
    model.save_pretrained(folder, **save_options)
    return folder
