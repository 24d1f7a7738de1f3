"""Parameters of published models against what their publishers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from wingspan.specs.families import model_from_config
from wingspan.specs.models import load_model

CONFIGS = Path(__file__).parents[1] / "cases" / "configs"
"""Each `config.json` reduced to what sizes are made of, with where it is from."""


@pytest.mark.parametrize(
    ("name", "total", "active", "left_out"),
    [
        # In billions, as the model cards say; some count neither tables of the vocabulary.
        ("granite-4.0-h-small", "32", "9", ""),
        ("jamba-1.5-mini", "52", "12", ""),  # arXiv:2408.12570
        ("kimi-linear-48b-a3b", "48", "3", "embedding and head"),  # arXiv:2510.26692
        ("lfm2-8b-a1b", "8.3", "1.5", ""),
        ("ling-3.0-flash", "124", "5.1", "embedding, of active"),
        ("minimax-m1", "456", "45.9", "embedding and head, of active"),  # arXiv:2501.08313, the same model
        ("nemotron-3-nano-30b-a3b", "31.6", "3.6", ""),
        ("nemotron-3-super-120b-a12b", "120", "12", "embedding, of active"),
        ("nemotron-3-ultra-550b-a55b", "550", "55", "embedding, of active"),  # arXiv:2606.15007
        ("qwen3-next-80b-a3b", "80", "3", "embedding and head, of active"),
        # The card counts the vision part too, 0.5 billion.
        ("qwen3.5-397b-a17b", "397", "17", ""),
        ("qwen3.5-35b-a3b", "35", "3", ""),
    ],
)
def test_parameters_are_the_publishers_to_the_last_digit(
    name: str, total: str, active: str, left_out: str
) -> None:
    model = load_model(str(CONFIGS / f"{name}.json"))
    parameters = model.parameters
    less = parameters.embedding * ("embedding" in left_out) + parameters.head * ("head" in left_out)
    found = parameters.total - (0 if "of active" in left_out else less)
    assert abs(found / 1e9 - float(total)) < _last_digit(total)
    assert abs((parameters.active - less) / 1e9 - float(active)) < _last_digit(active)
    assert model.source.startswith("https://")


def _last_digit(figure: str) -> float:
    """One of the last digit that is said: some round, some cut off."""
    return 10.0 ** -len(figure.partition(".")[2])


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.json")))
def test_every_layer_has_its_part(name: str) -> None:
    model = load_model(str(CONFIGS / f"{name}.json"))
    kept = sum(layers * mixer.state_bytes for mixer, layers in model.mixers)
    assert model.kv_values_per_token > 0
    assert kept > 0
    assert model.heads >= 2, "attention can be cut over GPUs"


def test_nemotron_ultra_is_as_large_as_its_files() -> None:
    # 1,023.2 GiB of BF16 without the layer that predicts two tokens ahead (its safetensors index).
    model = load_model(str(CONFIGS / "nemotron-3-ultra-550b-a55b.json"))
    assert model.parameters.total * 2 / 2**30 == pytest.approx(1023.2, abs=0.05)
    assert model.row_width == 2048


def test_tables_of_n_grams_are_apart_from_what_a_token_uses() -> None:
    # "125B-A6B" and 51 billion values of n-grams; the 6 leave out embedding and head (the model card).
    parameters = load_model(str(CONFIGS / "qwen3.8-flash-next.json")).parameters
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
    parameters = load_model(str(CONFIGS / "zaya1-8b.json")).parameters
    assert abs((parameters.total - parameters.embedding) / 1e9 - 8.4) < 0.1
    always = parameters.beside_experts + parameters.expert * parameters.moe_layers
    assert abs((always - parameters.embedding) / 1e9 - 0.76) < 0.01
    assert always - parameters.active == pytest.approx(
        parameters.expert * parameters.moe_layers / 17, rel=1e-6
    )
