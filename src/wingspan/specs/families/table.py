"""The families whose sizes are known, by `model_type`."""

from __future__ import annotations

from wingspan.specs.families.family import Family
from wingspan.specs.families.sparse import indexed_latent
from wingspan.specs.families.uneven import gated_heads, laguna_heads, mimo_heads

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
    "deepseek_v32": Family(mixers=indexed_latent, dense_by_default=3),
    "glm_moe_dsa": Family(mixers=indexed_latent, dense_by_default=3),
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
    "afmoe": Family(query_key_norm="head", output_gate="values", norms=4, router_bias=True),
    "aria_text": Family(),
    "axk1": Family(latent=True, moe_norms=1),
    "beam": Family(mixers=gated_heads, norms=4),
    "cohere2_moe": Family(norms=1, tied_by_default=True),
    "exaone_moe": Family(query_key_norm="head", dense_by_default=1),
    "flint": Family(query_key_norm="head", sinks=True),
    "glm4v_moe_text": Family(output_bias=False, dense_by_default=1),
    "granitemoe_swa": Family(sinks=True),
    "granitemoeshared": Family(),
    "hunyuan_v1_moe": Family(query_key_norm="head", one_shared=True),
    "kolibri1": Family(query_key_norm="head", norms=4),
    "laguna": Family(mixers=laguna_heads, router_bias=True),
    "mellum": Family(query_key_norm="head"),
    "mimo_v2_flash": Family(mixers=mimo_heads),
    "mistral4": Family(latent=True),
    "qwen3_omni_moe_text": Family(query_key_norm="head"),
    "qwen3_vl_moe_text": Family(query_key_norm="head"),
    "hy_v3": Family(query_key_norm="head", dense_by_default=1),
}
