"""What a sequence keeps, by the planner's count, against the cache that transformers fills for a small model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.specs.modules import text_modules
from wingspan.errors import InputError
from wingspan.specs.families import model_from_config
from wingspan.specs.mixers import LinearMixer, Mixer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LENGTHS = (20, 37)
"""Tokens; both are longer than every convolution and window of the small configurations."""


@pytest.mark.parametrize(
    "kind",
    [
        "qwen3_next",
        "kimi_linear",
        "bailing_hybrid",
        "minimax",
        "granitemoehybrid",
        "jamba",
        "lfm2_moe",
        "nemotron_h",
        "qwen4_exp_text",
        "zaya",
        "inkling_text",
        "inkling2_text",
        "glm5_next_text",
    ],
)
def test_bytes_that_a_sequence_keeps_are_those_of_transformers_cache(kind: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.architectures import tiny_configuration

    text = tiny_configuration(kind).get_text_config()
    config = json.loads(json.dumps({**text.to_dict(), "model_type": text.model_type}, default=str))
    spec = model_from_config(config, kind)
    # Inkling 2 has parts in FP32 that stay so.
    value_bytes = 4 if kind == "inkling2_text" else 2
    for tokens in _LENGTHS:
        expected = _cached_bytes(text, tokens, value_bytes)
        found = [
            sum(
                value_bytes * _kept_values(mixer, tokens) + mixer.state_bytes
                for mixer in spec.kind_of(n).mixers
            )
            for n in range(spec.layers)
        ]
        assert found == expected, tokens


def _kept_values(mixer: Mixer, tokens: int) -> float:
    """Between steps: of a window one token less than a step sees; of a gated key also whether it counts."""
    window = getattr(mixer, "window_tokens", None)
    index = getattr(mixer, "index", None)
    flags = tokens if index is not None and index.gated else 0
    return float(mixer.cached_values(min(tokens, window - 1) if window else tokens)) + flags


def _cached_bytes(text: PreTrainedConfig, tokens: int, value_bytes: int) -> list[int]:
    """Bytes that each layer keeps after a prompt."""
    import torch

    torch.manual_seed(0)
    dtype = torch.float32 if value_bytes == 4 else torch.bfloat16
    model = text_modules(text, dtype=dtype)[0].eval()
    with torch.no_grad():
        cache = model(torch.randint(1, 90, (1, tokens)), use_cache=True).past_key_values
    layers = [sum(_bytes_of(value) for value in vars(layer).values()) for layer in cache.layers]
    # MiniMax's states lie beside the layers.
    states = getattr(cache, "linear_cache", [])
    layers += [0] * (text.num_hidden_layers - len(layers))
    for number, state in enumerate(states):
        layers[number] += _bytes_of(state)
    return layers


def _bytes_of(value: object) -> int:
    """Bytes of floating-point tensors; positions and numbers of tokens are not counted."""
    import torch

    if isinstance(value, dict):
        return sum(_bytes_of(part) for part in value.values())
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return 0
    return value.numel() * value.element_size()


_NEMOTRON = {
    "model_type": "nemotron_h",
    "hidden_size": 64,
    "vocab_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "intermediate_size": 96,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "hybrid_override_pattern": "ME*E",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hybrid_override_pattern": "MEX"}, ["layer 2", "'X'", "moe"]),
        ({"hybrid_override_pattern": None, "num_hidden_layers": 2}, ["layers_block_type", "missing"]),
        ({"hybrid_override_pattern": "M-*-"}, ["dense"]),
        ({"model_type": "lfm2_moe", "num_hidden_layers": 2}, ["layer_types", "missing"]),
        ({"model_type": "lfm2_moe", "num_hidden_layers": 2, "layer_types": ["conv"]}, ["1 entries", "layer 1"]),
        ({"model_type": "minimax", "num_hidden_layers": 1, "layer_types": ["swirl"]}, ["swirl", "minimax"]),
        ({"model_type": "qwen3_next", "num_hidden_layers": 2, "linear_num_value_heads": 3}, ["multiple", "16"]),
        ({"model_type": "kimi_linear", "num_hidden_layers": 2, "linear_attn_config": 3}, ["linear_attn_config"]),
        (
            {"model_type": "jamba", "num_hidden_layers": 2, "intermediate_size": 9, "attn_layer_offset": 8},
            ["attn_layer_offset 8", "attn_layer_period 8"],
        ),
    ],
)  # fmt: skip
def test_unfit_layers_are_named(change: dict[str, object], words: list[str]) -> None:
    config = {**_NEMOTRON, **change}
    if change.get("model_type"):
        config.pop("hybrid_override_pattern")
    with pytest.raises(InputError) as caught:
        model_from_config(config, "some/config.json")
    for word in ["some/config.json", *words]:
        assert word in str(caught.value)


def test_a_delta_rule_reads_its_state_twice() -> None:
    shared = {"heads": 4, "key_dim": 8, "value_dim": 16, "inward": ((64, 128),), "attended": 64}
    plain, delta = LinearMixer(**shared), LinearMixer(**shared, corrects=True)
    assert plain.recurrence(1).flops_per_token == 5 * 4 * 8 * 16
    assert delta.recurrence(1).flops_per_token == 7 * 4 * 8 * 16
    assert delta.recurrence(2).flops_per_token * 2 == delta.recurrence(1).flops_per_token
    assert plain.recurrence(2).state_bytes * 2 == plain.state_bytes == 4 * 8 * 16 * 4
