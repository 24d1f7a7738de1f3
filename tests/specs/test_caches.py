"""What mixers cache per token against the cache that transformers fills for a tiny model of each family."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.specs.modules import text_modules
from wingspan.specs.families import model_from_config

if TYPE_CHECKING:
    import torch

SHORT, LONG = 16, 32
"""Beyond every window, and multiples of every rate of compression."""


@pytest.mark.parametrize(
    "kind",
    [
        "axk2",
        "dots3_note_text",
        "gemma4_text",
        "hy_v4",
        "minimax_m3_vl_text",
        "deepseek_v4",
        "deepseek_v32",
        "gpt_oss",
        "mixtral",
        "mimo_v2_flash",
        "mistral_large4_text",
        "inkling_text",
        "unlimited_ocr_text",
        "deepseek_ocr2_text",
        "ernie4_5_vl_moe_text",
    ],
)
def test_growth_of_the_cache_is_that_of_transformers(kind: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.architectures import tiny_configuration

    text = tiny_configuration(kind).get_text_config()
    spec = model_from_config(json.loads(json.dumps(text.to_dict(), default=str)), kind)
    held = {length: _held_values(text, length) for length in (SHORT, LONG)}
    predicted = {
        length: sum(float(mixer.cached_values(length)) * count for mixer, count in spec.mixers)
        for length in (SHORT, LONG)
    }
    assert predicted[LONG] - predicted[SHORT] == held[LONG] - held[SHORT]


def _held_values(text: Any, length: int) -> int:
    import torch
    from transformers import DynamicCache

    model = text_modules(text, dtype=torch.float32)[0].eval()
    cache = DynamicCache(config=text)
    with torch.no_grad():
        # Two steps: some caches are cut only when the second one comes.
        model(torch.ones(1, length - 1, dtype=torch.long), past_key_values=cache, use_cache=True)
        model(torch.ones(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    tensors = {tensor.data_ptr(): tensor for layer in cache.layers for tensor in _tensors(vars(layer))}
    return sum(tensor.numel() for tensor in tensors.values())


def _tensors(value: Any) -> list[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() and value.numel() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
