"""In which precision checkpoints are published, as their configs say it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.specs.published import content
from tests.specs.test_families import SMALL
from wingspan.errors import InputError
from wingspan.specs.families import model_from_config
from wingspan.specs.models import load_model
from wingspan.specs.precision import Precision

_INT4 = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}
_ONLY_EXPERTS = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]


def _model(quantization: object) -> tuple[Precision, Precision]:
    config = {**SMALL, "model_type": "mixtral", "num_local_experts": 8, "quantization_config": quantization}
    of = model_from_config(config, "a config")
    return of.precision.attention.weights, of.precision.experts.weights


def _compressed(weights: dict[str, Any], ignore: list[str]) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ignore}


@pytest.mark.parametrize(
    ("quantization", "attention", "experts"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "bf16", "mxfp4"),
        (_compressed(_INT4, _ONLY_EXPERTS), "bf16", "int4-g32"),
        (_compressed({**_INT4, "group_size": 128}, ["lm_head"]), "int4", "int4"),
        (_compressed({"num_bits": 8, "type": "float"}, ["lm_head"]), "fp8", "fp8"),
        (_compressed({"num_bits": 8, "type": "int"}, ["re:.*self_attn"]), "bf16", "int8"),
        (_compressed({"num_bits": 4, "type": "float", "group_size": 16}, []), "nvfp4", "nvfp4"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "ignore": ["model.layers.2.self_attn*", "lm_head"],
            },
            "bf16",
            "nvfp4",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", "int4"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", "int8"),
    ],
)
def test_the_format_of_each_part(quantization: object, attention: str, experts: str) -> None:
    assert _model(quantization) == (Precision(attention), Precision(experts))


def test_what_stands_beside_the_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({**SMALL, "model_type": "mixtral", "num_local_experts": 8})
    )
    said = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(said))
    assert load_model(str(tmp_path)).precision.experts.weights is Precision.FP8


def _mixed(layers: dict[str, str]) -> dict[str, Any]:
    each = {name: {"quant_algo": algorithm} for name, algorithm in layers.items()}
    return {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": each}


@pytest.mark.parametrize(
    ("name", "quantization", "described"),
    [
        # As nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4 says it of a model with the same layers.
        (
            "nemotron-3-nano-30b-a3b",
            _mixed(
                {f"backbone.layers.{n}.mixer.out_proj": "FP8" for n in range(52)}
                | {f"backbone.layers.{n}.mixer.experts.0.down_proj": "W4A16_NVFP4" for n in range(52)}
            ),
            "fp8 weights (bf16 dense and shared; nvfp4 weight-only experts)",
        ),
        # As nvidia/Gemma-4-26B-A4B-NVFP4.
        (
            "gemma-4-26b-a4b",
            {
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "ignore": [
                    f"model.language_model.layers.{n}.{part}*"
                    for n in range(30)
                    for part in ("mlp", "self_attn")
                ],
            },
            "bf16 weights (nvfp4 experts)",
        ),
        # As nvidia/Qwen3.6-35B-A3B-NVFP4.
        (
            "qwen3.5-35b-a3b",
            _mixed(
                {f"model.language_model.layers.{n}.linear_attn.out_proj": "FP8" for n in range(40)}
                | {f"model.language_model.layers.{n}.self_attn.o_proj": "FP8" for n in range(40)}
                | {f"model.language_model.layers.{n}.mlp.experts": "W4A16_NVFP4" for n in range(40)}
            ),
            "fp8 weights (bf16 dense and shared; nvfp4 weight-only experts)",
        ),
        # As nvidia/DeepSeek-V4-Flash-NVFP4.
        (
            "deepseek-v4-flash",
            {"quant_method": "fp8", "moe_quant_algo": "NVFP4"},
            "fp8 weights (nvfp4 experts)",
        ),
    ],
)
def test_formats_of_published_checkpoints(name: str, quantization: dict[str, Any], described: str) -> None:
    model = model_from_config({**content(name), "quantization_config": quantization}, name)
    assert model.precision.weights_described == described.replace(" weight-only", "")
    alone = model.precision.experts.activations is Precision.BF16
    assert alone == ("weight-only" in described)


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (_compressed({"num_bits": 3, "type": "int"}, []), ["3 bits"]),
        ({"quant_method": "compressed-tensors", "config_groups": []}, ["config_groups"]),
        ({"quant_method": "modelopt", "quant_algo": "NF3"}, ["NF3", "NVFP4"]),
        ({"quant_method": "modelopt", "quantization": 7}, ["quant_algo"]),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ["bitsandbytes", "awq"]),
        ("fp8", ["must be an object"]),
    ],
)
def test_a_format_that_is_not_known_is_named(quantization: object, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _model(quantization)
    for word in words:
        assert word in str(caught.value)
