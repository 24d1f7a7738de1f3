"""Parameter counts of every family against the modules of transformers itself, built without memory."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.specs.modules import parameters_of
from wingspan.errors import InputError
from wingspan.specs.families import FAMILIES, TEXT_PARTS, model_from_config
from wingspan.specs.mixers import HeadAttention

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
}
_MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "moe_intermediate_size": 40,
}
CASES = [
    ("wingspan_moe", {"num_experts": 8, "moe_intermediate_size": 40, "gated_experts": False, "head_dim": 16}),
    ("wingspan_moe", {"num_experts": 8, "moe_intermediate_size": 40, "gated_experts": True, "n_shared_experts": 2,
                      "head_dim": 16}),
    ("wingspan_moe", {"num_experts": 8, "moe_intermediate_size": 40, "head_dim": 16, "first_k_dense_replace": 0}),
    ("mixtral", {"num_local_experts": 8}),
    ("mixtral", {"num_local_experts": 8, "head_dim": 24, "tie_word_embeddings": True}),
    ("phimoe", {"num_local_experts": 8, "attention_bias": True, "lm_head_bias": True}),
    ("granitemoe", {"num_local_experts": 8}),
    ("olmoe", {"num_experts": 8}),
    ("flex_olmo", {"num_experts": 8}),
    ("qwen2_moe", {"num_experts": 8, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 80,
                   "decoder_sparse_step": 1}),
    ("qwen3_moe", {"num_experts": 8, "moe_intermediate_size": 40, "head_dim": 16, "mlp_only_layers": [0],
                   "decoder_sparse_step": 1}),
    ("qwen3_moe", {"num_experts": 8, "moe_intermediate_size": 40, "head_dim": 16, "decoder_sparse_step": 2}),
    ("deepseek_v2", {**_MLA, "first_k_dense_replace": 1}),
    ("deepseek_v2", {**_MLA, "q_lora_rank": None, "first_k_dense_replace": 1}),
    ("deepseek_v3", _MLA),
    ("deepseek_v3", {**_MLA, "first_k_dense_replace": 2, "n_group": 4, "topk_group": 2}),
    ("dots1", {"n_routed_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 40, "head_dim": 16,
               "first_k_dense_replace": 1}),
    ("glm4_moe", {"n_routed_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 40, "head_dim": 16,
                  "first_k_dense_replace": 1, "use_qk_norm": True, "attention_bias": True}),
    ("glm4_moe_lite", _MLA),
    ("glm4_moe_lite", {**_MLA, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    ("gpt_oss", {"num_local_experts": 8, "head_dim": 16, "sliding_window": 8}),
    ("llama4_text", {"num_local_experts": 8, "intermediate_size_mlp": 112, "interleave_moe_layer_step": 2,
                     "head_dim": 16, "moe_layers": None}),
    ("minimax_m2", {"num_local_experts": 8, "head_dim": 16}),
    ("solar_open", {"n_routed_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 40, "head_dim": 16}),
    ("ernie4_5_moe", {"moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 2, "moe_intermediate_size": 40,
                      "moe_layer_start_index": 1, "moe_layer_end_index": 3, "moe_layer_interval": 1,
                      "use_bias": True}),
    ("hy_v3", {"num_experts": 8, "num_shared_experts": 1, "moe_intermediate_size": 40, "head_dim": 16,
               "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    ("dbrx", {"d_model": 64, "n_heads": 4, "n_layers": 3, "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4},
              "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 8, "moe_top_k": 3},
              "num_experts_per_tok": None}),
    ("jetmoe", {"num_local_experts": 8, "kv_channels": 24, "num_attention_heads": None}),
    ("doge", {"is_moe": True, "num_experts": 64, "num_experts_per_tok": 5}),
]  # fmt: skip


def test_every_family_but_an_alias_is_checked() -> None:
    transformers = pytest.importorskip("transformers")
    # These have no code in transformers: kimi_k2 has DeepSeek-V3's modules, the next two those of minimax, the others
    # are compared with what their publishers say.
    tried = {kind for kind, _ in CASES} | {"kimi_k2", "minimax_text_01", "minimax_m1"}
    tried |= {"arctic", "bailing_moe", "bailing_moe_v2", "grok-1", "hunyuan", "step3_text"}
    # These have a test of their own: modules hold rows that no choice uses, or only a wrapper is registered.
    tried |= {"longcat_flash", "step3p5"}
    tried |= {transformers.CONFIG_MAPPING[kind]().get_text_config().model_type for kind in _registry()}
    assert tried == set(FAMILIES)


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=[f"{k}-{n}" for n, (k, _) in enumerate(CASES)])
def test_parameters_are_those_of_transformers(kind: str, fields: dict[str, object]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import wingspan.models  # noqa: F401 - registers our own family

    config = {**SMALL, **fields, "model_type": kind}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert model_from_config(config, kind).parameters.total == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": None}, ["model_type"]),
        ({"model_type": "llama", "num_local_experts": None}, ["no experts"]),
        ({"model_type": "starfish"}, ["starfish", "mixtral"]),
        ({"hidden_size": None}, ["hidden_size", "missing"]),
        ({"hidden_size": -3}, ["hidden_size", "-3"]),
        ({"num_experts_per_tok": 9}, ["9"]),
        ({"num_key_value_heads": 3}, ["kv_heads 3"]),
        ({"dtype": "int8"}, ["int8"]),
        ({"quantization_config": {"quant_method": "quip"}}, ["quip", "workload"]),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, ["bits", "3"]),
    ],
)
def test_unfit_configs_are_named(change: dict[str, object], words: list[str]) -> None:
    config = {**SMALL, "model_type": "mixtral", "num_local_experts": 8, **change}
    with pytest.raises(InputError) as caught:
        model_from_config(config, "some/config.json")
    for word in ["some/config.json", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(("kind", "part"), [*TEXT_PARTS.items(), ("qwen3_vl_moe", "qwen3_vl_moe_text")])
def test_text_part_without_a_type_of_its_own(kind: str, part: str) -> None:
    usual = model_from_config({**EVERYTHING, "model_type": part}, "x")
    for config in (
        {**EVERYTHING, "model_type": kind},
        {"model_type": kind, "text_config": EVERYTHING},
        {"model_type": kind, "language_config": {**EVERYTHING, "model_type": part}},
    ):
        assert model_from_config(config, "x") == usual


EVERYTHING = {
    **SMALL,
    **_MLA,
    "num_local_experts": 8,
    "head_dim": 16,
    "num_experts": 8,
    "moe_num_experts": 8,
    "share_q_dim": 16,
    "o_groups": 2,
    "o_lora_rank": 8,
    "sliding_window": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 8,
}
"""Enough for any of them."""


def test_text_part_of_a_multimodal_config() -> None:
    text = {**SMALL, "model_type": "mixtral", "num_local_experts": 8}
    nested = model_from_config({"model_type": "outer", "text_config": text}, "x")
    assert nested.parameters == model_from_config(text, "x").parameters


@cache
def _registry() -> list[str]:
    """Types of transformers' experts registry whose families are known."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from wingspan.runtime.model.known import architectures

    return [
        t
        for t in architectures()
        if transformers.CONFIG_MAPPING[t]().get_text_config().model_type in FAMILIES
    ]


def test_parameters_of_the_registrys_types_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.architectures import tiny_configuration

    wrong = {}
    for kind in _registry():
        text = tiny_configuration(kind).get_text_config()
        with torch.device("meta"):
            expected = parameters_of(text)
        config = json.loads(json.dumps({**text.to_dict(), "model_type": text.model_type}, default=str))
        found = model_from_config(config, kind).parameters.total
        if found != expected:
            wrong[kind] = (found, expected)
    assert wrong == {}


def test_parameters_of_layers_with_other_heads_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    sizes = {
        **SMALL,
        "num_hidden_layers": 3,
        "num_attention_groups": 2,
        "head_dim": 16,
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "num_nextn_predict_layers": 1,
        "sliding_window": 8,
        "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 6},
        "moe_layers_enum": "1,2",
        "moe_num_experts": 8,
        "moe_top_k": 2,
        "moe_intermediate_size": 40,
        "share_expert_dim": 24,
    }
    del sizes["num_key_value_heads"], sizes["num_experts_per_tok"]
    text = transformers.CONFIG_MAPPING["step3p7"](text_config=dict(sizes)).get_text_config()
    with torch.device("meta"):
        expected = parameters_of(text)
    written = json.loads(json.dumps(text.to_dict(), default=str))
    for config in (written, {"model_type": "step3p7", "text_config": sizes}):
        found = model_from_config(config, "step")
        assert found.parameters.total == expected
        windows = {mixer.heads: getattr(mixer, "window_tokens", None) for mixer, _ in found.mixers}
        assert windows == {4: None, 6: 8}


def test_layers_with_a_window_have_the_heads_that_the_config_says() -> None:
    own = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 24, "v_head_dim": 8}
    sizes = {
        **SMALL,
        "model_type": "mimo_v2",
        "head_dim": 16,
        "v_head_dim": 12,
        "n_routed_experts": 8,
        "moe_intermediate_size": 40,
        "sliding_window": 8,
        "hybrid_layer_pattern": [0, 1, 1, 0],
        "add_full_attention_sink_bias": True,
        **{f"swa_{name}": value for name, value in own.items()},
    }
    wide, narrow = (mixer for mixer, _ in model_from_config(sizes, "mimo").mixers)
    assert isinstance(wide, HeadAttention)
    assert isinstance(narrow, HeadAttention)
    assert (wide.heads, wide.kv_heads, wide.head_dim, wide.value_dim, wide.window_tokens) == (
        4,
        2,
        16,
        12,
        None,
    )
    assert (narrow.heads, narrow.kv_heads, narrow.head_dim, narrow.value_dim) == (6, 3, 24, 8)
    assert (wide.extra_parameters, narrow.extra_parameters) == (4, 6), "sinks"
    assert narrow.values_per_token == 3 * (24 + 8)


def test_parameters_of_two_blocks_a_layer_are_those_that_are_used() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "num_layers": 3,
        "num_attention_heads": 4,
        "ffn_hidden_size": 96,
        "q_lora_rank": 24,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "moe_topk": 2,
        "n_routed_experts": 8,
        "zero_expert_num": 4,
        "expert_ffn_hidden_size": 40,
    }
    config = transformers.AutoConfig.for_model("longcat_flash", **sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    # transformers gives those that compute nothing a gate and an up matrix too, which no token passes.
    unused = 3 * 4 * 2 * 40 * 64
    expected = sum(parameter.numel() for parameter in model.parameters()) - unused
    found = model_from_config({**sizes, "model_type": "longcat_flash"}, "longcat")
    assert found.parameters.total == expected
    assert found.experts.rows_per_token == 2 * 8 / 12


@pytest.mark.parametrize(
    ("kind", "billions", "active_billions"),
    [
        # Of the checkpoints whose sizes are the defaults of transformers' classes, as their publishers say,
        # active without the embedding
        # (openrouter.ai/deepseek/deepseek-v4-flash; github.com/meituan-longcat/LongCat-Flash-Chat).
        ("deepseek_v4", 284, 13),
        ("longcat_flash", 560, 27),
    ],
)
def test_published_sizes(kind: str, billions: int, active_billions: int) -> None:
    transformers = pytest.importorskip("transformers")

    text = transformers.CONFIG_MAPPING[kind]().get_text_config()
    config = json.loads(json.dumps({**text.to_dict(), "model_type": text.model_type}, default=str))
    found = model_from_config(config, kind).parameters
    assert found.total / 1e9 == pytest.approx(billions, rel=0.005)
    assert round((found.active - found.embedding) / 1e9) == active_billions
