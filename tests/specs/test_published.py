"""Parameters of published models against what their publishers say, and against transformers' modules."""

from __future__ import annotations

import pytest

from tests.specs.published import COMPARABLE, CONFIGS, PUBLISHED, content, difference
from wingspan.specs.families import model_from_config
from wingspan.specs.models import load_model
from wingspan.specs.parameters import Parameters


def test_there_are_sixty() -> None:
    assert len(PUBLISHED) >= 60
    assert sum("active" in figures for figures in PUBLISHED.values()) >= 58


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_publishers_to_the_last_digit(name: str) -> None:
    figures = PUBLISHED[name]
    assert set(figures) <= _KNOWN
    assert content(name)["source"]
    assert figures["where"]
    parameters = load_model(str(CONFIGS[name])).parameters
    total = parameters.total - _left_out(parameters, figures.get("total_without", ""))
    said, digit = _billions(figures["total"])
    if "counts_too" in figures:
        # What we do not count is small.
        assert said * 0.97 < total / 1e9 < said + digit
    else:
        assert abs(total / 1e9 - said) < figures.get("to", digit)
    if "active" in figures and figures.get("counts_too") != "MTP":
        active = parameters.active - _left_out(parameters, figures.get("active_without", ""))
        said, digit = _billions(figures["active"])
        assert abs(active / 1e9 - said) < digit


_KNOWN = {"total", "active", "total_without", "active_without", "counts_too", "to", "where"}


def _left_out(parameters: Parameters, parts: str) -> int:
    return parameters.embedding * ("embedding" in parts) + parameters.head * ("head" in parts)


def _billions(figure: str) -> tuple[float, float]:
    """A figure, and one of the last digit that is said: some round, some cut off."""
    scale = 1000.0 if figure.endswith("T") else 1.0
    digits = figure.removesuffix("T")
    return float(digits) * scale, scale * 10.0 ** -len(digits.partition(".")[2])


@pytest.mark.parametrize("name", COMPARABLE[::9])
def test_parameters_of_published_ones_are_those_of_transformers(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    # A sample; `python -m tests.specs.published` compares all.
    assert difference(name) == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_has_its_part(name: str) -> None:
    model = load_model(str(CONFIGS[name]))
    assert model.kv_values_per_token > 0
    assert model.heads >= 2, "attention can be cut over GPUs"


def test_nemotron_ultra_is_as_large_as_its_files() -> None:
    # 1,023.2 GiB of BF16 without the layer that predicts two tokens ahead (its safetensors index).
    model = load_model(str(CONFIGS["nemotron-3-ultra-550b-a55b"]))
    assert model.parameters.total * 2 / 2**30 == pytest.approx(1023.2, abs=0.05)
    assert model.row_width == 2048


def test_tables_of_n_grams_are_apart_from_what_a_token_uses() -> None:
    # "125B-A6B" and 51 billion values of n-grams; the 6 leave out embedding and head (the model card).
    parameters = load_model(str(CONFIGS["qwen3.8-flash-next"])).parameters
    assert parameters.looked_up / 1e9 == pytest.approx(51.2, abs=0.05)
    assert abs((parameters.total - parameters.looked_up) / 1e9 - 125) < 1
    plain = parameters.embedding - parameters.looked_up
    assert abs((parameters.active - plain - parameters.head) / 1e9 - 6) < 1


def test_ling_with_lightning_attention_is_told_from_ling_with_kda() -> None:
    # 104 and 7.4 billion (the model card of Ling-2.6-flash, of whose config no copy was at hand: layers, experts and
    # ranks are the card's, the other widths those of Ling-flash-2.0, which it was made from).
    config = {
        "model_type": "bailing_hybrid",
        "hidden_size": 4096,
        "intermediate_size": 9216,
        "moe_intermediate_size": 1024,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "head_dim": 128,
        "vocab_size": 157184,
        "first_k_dense_replace": 1,
        "layer_group_size": 8,
        "group_norm_size": 4,
        "use_qk_norm": True,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    lightning = model_from_config(config, "x")
    assert abs(lightning.parameters.total / 1e9 - 104) < 1
    assert abs(lightning.parameters.active / 1e9 - 7.4) < 0.1
    assert lightning.kv_values_per_token == 4 * (512 + 64)
    kda = model_from_config({**config, "short_conv_kernel_size": 4}, "x")
    assert kda.parameters.attention > lightning.parameters.attention


def test_a_choice_that_computes_nothing_leaves_less_active() -> None:
    # 8.4 and 0.76 billion without the embedding, with an expert for every token (the model card).
    parameters = load_model(str(CONFIGS["zaya1-8b"])).parameters
    assert abs((parameters.total - parameters.embedding) / 1e9 - 8.4) < 0.1
    always = parameters.beside_experts + parameters.expert * parameters.moe_layers
    assert abs((always - parameters.embedding) / 1e9 - 0.76) < 0.01
    assert always - parameters.active == pytest.approx(
        parameters.expert * parameters.moe_layers / 17, rel=1e-6
    )


def test_an_expert_of_kimi_k3_is_as_large_as_its_shard_says() -> None:
    # Two matrices of 3072 x 1792 bytes and 3072 x 112 of scales, one of 3584 x 1536 and 3584 x 96 (the header of one of
    # its shards, as the page on K3 of github.com/sqliteai/waste has it).
    model = load_model("kimi-k3")
    expected = 2 * 3072 * (1792 + 112) + 3584 * (1536 + 96)
    assert model.parameters.expert * model.precision.experts.weights.weight_bytes == expected
    assert model.parameters.moe_layers == 92
