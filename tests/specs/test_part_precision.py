"""Which formats a step computes in: as published, as asked for, and as the GPU can."""

import json

import pytest

from tests.specs.test_families import SMALL
from wingspan.errors import InputError
from wingspan.specs.cluster import load_cluster
from wingspan.specs.families import model_from_config
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import AskedPrecision, Precisions
from wingspan.specs.precision import Precision
from wingspan.specs.precision_text import PRESETS, text_of, with_precision
from wingspan.specs.workload import Workload


def _precisions(model: str | ModelSpec, cluster: str, text: str | None = None) -> Precisions:
    asked = AskedPrecision() if text is None else with_precision(AskedPrecision(), text, "the option")
    of = load_model(model) if isinstance(model, str) else model
    work = Workload.model_validate({"tokens_per_gpu": 1, "context": 10, "precision": asked})
    return work.precisions(of, load_cluster(cluster).gpu)


@pytest.mark.parametrize(
    ("model", "cluster", "text", "described"),
    [
        ("deepseek-v3", "h100-sxm", None, "fp8 weights, fp8 activations, bf16 KV cache"),
        ("deepseek-v3", "a100", None, "fp8 weight-only weights, bf16 activations, bf16 KV cache"),
        (
            "gpt-oss-120b",
            "h100-sxm",
            None,
            "bf16 weights (mxfp4 weight-only experts), bf16 activations, bf16 KV cache",
        ),
        (
            "gpt-oss-120b",
            "b200",
            None,
            "bf16 weights (mxfp4 experts), bf16 activations (fp8 experts), bf16 KV cache",
        ),
        (
            "deepseek-v3",
            "b200",
            "nvfp4,kv=fp8",
            "fp8 weights (nvfp4 dense, shared and experts), fp8 activations (nvfp4 dense, shared and experts), "
            "fp8 KV cache",
        ),
        ("mixtral-8x7b", "h200", "int8", "int8 weights, int8 activations, bf16 KV cache"),
        ("mixtral-8x7b", "b200", "w4a16", "int4 weight-only weights, bf16 activations, bf16 KV cache"),
        ("mixtral-8x7b", "b200", "weights=fp4", "mxfp4 weights, fp8 activations, bf16 KV cache"),
        (
            "deepseek-v3",
            "h100-sxm",
            "bf16,core=fp8",
            "bf16 weights, bf16 activations, bf16 KV cache, fp8 attention core",
        ),
    ],
)
def test_weights_meet_what_their_kernels_take(
    model: str, cluster: str, text: str | None, described: str
) -> None:
    assert _precisions(model, cluster, text).described == described


@pytest.mark.parametrize(
    ("model", "cluster", "text", "why"),
    [
        ("deepseek-v3", "a100", None, "A100 SXM computes in int8, bf16, fp16 and fp32"),
        ("mixtral-8x7b", "b200", "w4a16", "no GPU computes in this format"),
        ("mixtral-8x7b", "b200", "nvfp4,activations=bf16", "bf16 activations are asked for"),
    ],
)
def test_widened_weights_are_said_with_the_reason(
    model: str, cluster: str, text: str | None, why: str
) -> None:
    (remark,) = _precisions(model, cluster, text).remarks
    assert "widened to bf16 in the kernel (weight-only)" in remark
    assert why in remark


def test_activations_that_a_config_leaves_alone_stay() -> None:
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "float", "group_size": 16},
        "input_activations": None,
    }
    said = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    config = {**SMALL, "model_type": "mixtral", "num_local_experts": 8, "quantization_config": said}
    of = model_from_config(config, "a config")
    got = _precisions(of, "b200")
    assert (got.experts.weights, got.experts.activations) == ("nvfp4", "bf16")
    assert "the checkpoint was quantised for that" in got.remarks[0]
    # What is asked for is no longer that checkpoint.
    assert _precisions(of, "b200", "nvfp4").experts.activations is Precision.NVFP4


def test_parts_of_several_groups_and_their_cache() -> None:
    experts = {"targets": ["re:.*mlp.experts.*"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}
    others = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}
    said = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": experts, "group_1": others},
        "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    }
    config = {**SMALL, "model_type": "qwen3_moe", "num_experts": 8, "quantization_config": said}
    got = _precisions(model_from_config(config, "a config"), "h100-sxm")
    assert got.described == (
        "fp8 weights (int4-g32 weight-only experts), fp8 activations (bf16 experts), fp8 KV cache"
    )


def test_mixed_precision_of_modelopt() -> None:
    layers = {"model.layers.2.mlp.experts": {"quant_algo": "NVFP4"}, "*self_attn*": {"quant_algo": "FP8"}}
    said = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    config = {
        **SMALL,
        "num_hidden_layers": 4,
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "quantization_config": said,
    }
    got = model_from_config(config, "a config").precision
    assert (got.attention.weights, got.experts.weights) == ("fp8", "nvfp4")


@pytest.mark.parametrize("text", [*PRESETS, "fp8,experts=nvfp4,kv=bf16", "weights=int8,core=fp8,combine=fp8"])
def test_what_is_asked_for_can_be_written_again(text: str) -> None:
    asked = with_precision(AskedPrecision(), text, "the option")
    assert with_precision(AskedPrecision(), text_of(asked), "the option") == asked


def test_a_preset_takes_the_place_of_weights_and_leaves_the_rest() -> None:
    before = with_precision(AskedPrecision(), "fp8,activations=bf16,kv=fp8", "the option")
    got = with_precision(before, "nvfp4", "the option")
    assert (got.attention, got.experts, got.activations, got.kv) == (None, "nvfp4", None, "fp8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fp9", "'fp9' is none of fp8, nvfp4"),
        ("kv=fp8,fp8", "one preset, then parts"),
        ("fp8,head=fp8", "'head' is no part; use weights, attention"),
        ("kv=FP8", "'FP8' is no format; use one of fp32"),
        ("kv=fp8,kv=bf16", "names kv twice"),
        ("activations=int4", "activations int4 is a format of weights alone"),
        ("core=nvfp4", "attention computes in one of fp32, bf16, fp16, fp8"),
        ("", "'' is none of"),
    ],
)
def test_what_is_no_precision_is_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        with_precision(AskedPrecision(), text, "the option")


def test_files_of_before_are_read_as_they_were_meant() -> None:
    work = {"tokens_per_gpu": 1, "context": 10, "weights": "fp8", "expert_weights": "fp4", "kv": "bf16"}
    asked = Workload.model_validate(work).precision
    assert (asked.attention, asked.shared, asked.experts, asked.kv) == ("fp8", "fp8", "mxfp4", "bf16")
    model = load_model("gpt-oss-120b")
    data = json.loads(model.model_dump_json())
    del data["precision"]
    assert ModelSpec.model_validate(data | {"weights": "bf16", "expert_weights": "fp4"}) == model
