"""What a sequence keeps, by the planner's count, against the cache that transformers fills for a small model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from wingspan.specs.families import model_from_config

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
    ],
)
def test_bytes_that_a_sequence_keeps_are_those_of_transformers_cache(kind: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.architectures import tiny_configuration

    text = tiny_configuration(kind).get_text_config()
    config = json.loads(json.dumps({**text.to_dict(), "model_type": text.model_type}, default=str))
    spec = model_from_config(config, kind)
    for tokens in _LENGTHS:
        expected = _cached_bytes(text, tokens)
        found = [
            sum(
                2 * float(mixer.cached_values(tokens)) + mixer.state_bytes for mixer in spec.kind_of(n).mixers
            )
            for n in range(spec.layers)
        ]
        assert found == expected, tokens


def _cached_bytes(text: PreTrainedConfig, tokens: int) -> list[int]:
    """Bytes that each layer keeps after a prompt, of a model in BF16."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(text, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        cache = model(torch.randint(1, 90, (1, tokens)), use_cache=True).past_key_values
    layers = [sum(_bytes_of(value) for value in vars(layer).values()) for layer in cache.layers]
    # MiniMax's states lie beside the layers, in the model's precision: engines keep them in FP32, as all others.
    states = getattr(cache, "linear_cache", [])
    layers += [0] * (text.num_hidden_layers - len(layers))
    for number, state in enumerate(states):
        layers[number] += 2 * _bytes_of(state)
    return layers


def _bytes_of(value: object) -> int:
    """Bytes of floating-point tensors; positions and numbers of tokens are not counted."""
    import torch

    if isinstance(value, dict):
        return sum(_bytes_of(part) for part in value.values())
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return 0
    return value.numel() * value.element_size()
