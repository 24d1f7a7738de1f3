"""The families whose sizes are known, by `model_type`."""

from __future__ import annotations

from wingspan.specs.families.beside import arctic_layer, doge_layer, grok_layer
from wingspan.specs.families.compressed import compressed
from wingspan.specs.families.family import Family
from wingspan.specs.families.gemma import gemma4_layer, layer_projection, layer_tables
from wingspan.specs.families.glm_next import glm_next
from wingspan.specs.families.images import ernie_vl_layer
from wingspan.specs.families.inkling import (
    embedding_norm,
    inkling2_heads,
    inkling2_residuals,
    inkling_heads,
    last_residual,
    shared_sinks,
)
from wingspan.specs.families.jetmoe import jetmoe_layer
from wingspan.specs.families.linear import (
    block_residuals,
    gated_delta_net,
    kimi_delta,
    lightning,
    ling,
    short_convolution,
)
from wingspan.specs.families.longcat import longcat_layer
from wingspan.specs.families.mamba import granite_mamba, jamba_layer, nemotron_layer
from wingspan.specs.families.mistral import mistral_large_latent
from wingspan.specs.families.qwen4 import ngram_tables, qwen4_layer
from wingspan.specs.families.sparse import (
    gated_indexed_latent,
    gated_norms,
    indexed_heads,
    indexed_latent,
    sunk_indexed_latent,
    windowed_indexed_latent,
)
from wingspan.specs.families.step import factored_heads, step_heads
from wingspan.specs.families.uneven import (
    expert_norms,
    gated_heads,
    laguna_heads,
    mimo_heads,
    muse_heads,
    shared_heads,
)
from wingspan.specs.families.zaya import zaya_layer

_DELTA_NET = {
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}

_GATED_DELTA_NETS = Family(
    mixers=gated_delta_net,
    query_key_norm="head",
    output_gate="values",
    shared_gate=True,
    defaults=_DELTA_NET,
)

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
    "deepseek_v4": Family(
        mixers=compressed,
        defaults={"n_shared_experts": 1},
    ),
    "axk2": Family(
        mixers=gated_indexed_latent,
        layer_extra=gated_norms,
        dense_by_default=1,
        defaults={"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 16},
    ),
    "dots3_note_text": Family(
        mixers=windowed_indexed_latent,
        dense_by_default=1,
        defaults={"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64},
    ),
    # The first two layers choose, and then one of four.
    "hy_v4": Family(
        mixers=sunk_indexed_latent,
        dense_by_default=1,
        defaults={"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 16, "index_topk_freq": 4},
    ),
    "minimax_m3_vl_text": Family(
        mixers=indexed_heads,
        query_key_norm="head",
        defaults={
            "shared_intermediate_size": 3072,
            "index_n_heads": 4,
            "index_head_dim": 128,
            "index_block_size": 128,
            "index_topk_blocks": 16,
        },
    ),
    "gemma4_text": Family(
        layer=gemma4_layer,
        embedding_extra=layer_tables,
        model_extra=layer_projection,
        tied_by_default=True,
    ),
    "muse_spark_text": Family(
        mixers=muse_heads, output_gate="values", windows="all", norms=5, layer_extra=expert_norms
    ),
    "longcat_flash": Family(layer=longcat_layer),
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
    "hunyuan": Family(mixers=shared_heads, query_key_norm="head", one_shared=True, tied_by_default=True),
    "kolibri1": Family(query_key_norm="head", norms=4),
    "laguna": Family(mixers=laguna_heads, router_bias=True),
    "mellum": Family(query_key_norm="head"),
    "mimo_v2_flash": Family(mixers=mimo_heads),
    "mistral4": Family(latent=True),
    "qwen3_omni_moe_text": Family(query_key_norm="head"),
    "qwen3_vl_moe_text": Family(query_key_norm="head"),
    "hy_v3": Family(query_key_norm="head", dense_by_default=1),
    "qwen3_next": _GATED_DELTA_NETS,
    "qwen3_5_moe_text": _GATED_DELTA_NETS,
    "kimi_linear": Family(
        mixers=kimi_delta,
        layer_extra=block_residuals,
        dense_by_default=1,
        defaults={"linear_head_dim": 128, "linear_num_heads": 32, "linear_conv_kernel_dim": 4},
    ),
    "bailing_hybrid": Family(mixers=ling, dense_by_default=2),
    "minimax": Family(mixers=lightning),
    "minimax_text_01": Family(mixers=lightning),
    "minimax_m1": Family(mixers=lightning),
    "lfm2_moe": Family(
        mixers=short_convolution,
        query_key_norm="head",
        tied_by_default=True,
        dense_by_default=2,
        defaults={"conv_L_cache": 3},
    ),
    "granitemoehybrid": Family(
        mixers=granite_mamba,
        defaults={
            "shared_intermediate_size": 1024,
            "mamba_n_heads": 128,
            "mamba_n_groups": 1,
            "mamba_d_state": 256,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
    ),
    "jamba": Family(
        layer=jamba_layer,
        defaults={
            "num_key_value_heads": 8,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
    ),
    # `use_bias` is of its Mamba layers, and no bias of the head.
    "nemotron_h": Family(
        layer=nemotron_layer,
        defaults={
            "lm_head_bias": False,
            "head_dim": 128,
            "num_key_value_heads": 8,
            "ssm_state_size": 128,
            "mamba_num_heads": 128,
            "mamba_head_dim": 64,
            "n_groups": 8,
            "conv_kernel": 4,
            "moe_shared_expert_intermediate_size": 7688,
        },
    ),
    "qwen4_exp_text": Family(
        layer=qwen4_layer,
        query_key_norm="head",
        output_gate="values",
        shared_gate=True,
        embedding_extra=ngram_tables,
        defaults={
            **_DELTA_NET,
            "hc_count": 4,
            "hc_lowrank": 320,
            "ple_conv_kernel_size": 4,
            "ngram_size": 3,
            "heads_per_ngram": 8,
            "ngram_vocab_size_base": 20_000_000,
            "make_ngram_vocab_size_divisible_by": 128,
        },
    ),
    "zaya": Family(
        layer=zaya_layer,
        tied_by_default=True,
        defaults={
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "num_experts_per_tok": 1,
            "router_hidden_size": 256,
            "cca_time0": 2,
            "cca_time1": 2,
        },
    ),
    "inkling_text": Family(
        mixers=inkling_heads,
        layer_extra=shared_sinks,
        model_extra=embedding_norm,
        defaults={
            "d_rel": 16,
            "rel_extent": 1024,
            "conv_kernel_size": 4,
            "sliding_window_size": 512,
            "n_shared_experts": 2,
        },
        names={"dense_mlp_idx": "first_k_dense_replace"},
    ),
    "inkling2_text": Family(
        mixers=inkling2_heads,
        layer_extra=inkling2_residuals,
        model_extra=last_residual,
        norms=2,
        defaults={"d_rel": 16, "rel_extent": 1024, "conv_kernel_size": 4, "sliding_window_size": 1024},
    ),
    "glm5_next_text": Family(
        mixers=glm_next,
        dense_by_default=3,
        defaults={
            "linear_head_dim": 128,
            "linear_num_heads": 64,
            "linear_conv_kernel_dim": 4,
            "index_topk": 2048,
            "index_head_dim": 128,
            "index_n_heads": 32,
            "index_kpool": 16,
            "qk_rope_head_dim": 0,
            "n_shared_experts": 1,
        },
    ),
    "mistral_large4_text": Family(
        mixers=mistral_large_latent,
        dense_by_default=1,
        defaults={"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 32, "n_shared_experts": 1},
    ),
    "ernie4_5_vl_moe_text": Family(
        layer=ernie_vl_layer,
        router_bias=True,
        tied_by_default=True,
        dense_by_default=1,
        defaults={"moe_num_experts": 64, "moe_intermediate_size": [1536, 512], "moe_num_shared_experts": 2},
    ),
    "deepseek_ocr2_text": Family(defaults={"n_shared_experts": 2}),
    "unlimited_ocr_text": Family(dense_by_default=1, defaults={"n_shared_experts": 2}),
    "step3p5": Family(
        mixers=step_heads,
        query_key_norm="head",
        dense_by_default=3,
        names={"num_attention_groups": "num_key_value_heads"},
        defaults={"share_expert_dim": 1280},
    ),
    "step3_text": Family(mixers=factored_heads, names={"num_attention_groups": "num_key_value_heads"}),
    "dbrx": Family(
        names={
            "d_model": "hidden_size",
            "n_heads": "num_attention_heads",
            "n_layers": "num_hidden_layers",
            "max_seq_len": "max_position_embeddings",
            "attn_config.kv_n_heads": "num_key_value_heads",
            "ffn_config.ffn_hidden_size": "moe_intermediate_size",
            "ffn_config.moe_num_experts": "num_experts",
            "ffn_config.moe_top_k": "num_experts_per_tok",
        },
    ),
    "jetmoe": Family(layer=jetmoe_layer, tied_by_default=True),
    "doge": Family(layer=doge_layer, query_key_norm="head"),
    "arctic": Family(layer=arctic_layer),
    "grok-1": Family(layer=grok_layer, tied_by_default=True),
    "bailing_moe": Family(output_bias=False),
    "bailing_moe_v2": Family(query_key_norm="head", output_bias=False, dense_by_default=1),
}

TEXT_PARTS = {
    "deepseek_ref": "deepseek_v4",
    "ernie4_5_moe_vl": "ernie4_5_vl_moe_text",
    "git": "grok-1",
    "grok-2": "grok-1",
    "hy_mt2": "hy_v3",
    "kimi_k25": "kimi_k2",
    "kimi_k3": "kimi_linear",
    "llama4": "llama4_text",
    "mimo_v2": "mimo_v2_flash",
    "minimax_m3": "minimax_m3_vl_text",
    "step3_vl": "step3_text",
    "step3p7": "step3p5",
}
"""Further types, of wrappers or of the same modules, and the family of their text; `T_text` needs no line for T."""
