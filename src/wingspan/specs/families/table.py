"""The families whose sizes are known, by `model_type`."""

from __future__ import annotations

from wingspan.specs.families.family import Family

FAMILIES = {
    "wingspan_moe": Family(dense_by_default=3),
    "mixtral": Family(windows="all"),
    "phimoe": Family(layer_norm=True, windows="all"),
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
        attention_bias=True, sinks=True, windows="alternate", expert_bias=True, router_bias=True
    ),
    "llama4_text": Family(one_shared=True),
    "minimax_m2": Family(query_key_norm="width"),
    "solar_open": Family(output_bias=False),
    "ernie4_5_moe": Family(router_bias=True, tied_by_default=True, dense_by_default=1),
    "hy_v3": Family(query_key_norm="head", dense_by_default=1),
}
