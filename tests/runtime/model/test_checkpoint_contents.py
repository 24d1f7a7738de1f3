"""A checkpoint that does not hold exactly the model's plain weights is refused in one line that names what is wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runtime.checkpoints import configurations, write
from tests.runtime.versions import same_version
from wingspan.errors import InputError
from wingspan.runtime.model.engine import check_weights, describe

EXPERT = "model.layers.1.mlp.experts.3.down_proj.weight"
NORM = "model.norm.weight"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 42\n"

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], object]


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory) -> Path:
    """One tensor per expert on disk, as published."""
    folder = tmp_path_factory.mktemp("deepseek")
    return write(configurations()["deepseek_v3"], folder, save_original_format=True)


def _changed(source: Path, folder: Path, change: Change, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | config))
    return folder


def _refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        check_weights(describe(folder))
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def _nothing(tensors: Tensors) -> None:
    pass


def test_a_complete_checkpoint_is_taken_whole(deepseek):
    inventory = check_weights(describe(deepseek))
    assert set(inventory.targets) == set(load_file(deepseek / "model.safetensors"))
    assert (inventory.problem, inventory.unused, inventory.quantised) == (None, {}, None)


@pytest.mark.parametrize("name", configurations())
@pytest.mark.parametrize("original", [True, False])
def test_every_layout_that_transformers_writes_is_complete(tmp_path, name, original):
    folder = write(configurations()[name], tmp_path, save_original_format=original)
    assert check_weights(describe(folder)).unused == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(EXPERT), ["1 weights are missing", EXPERT]),
        (lambda t: t.pop(NORM), ["missing", NORM]),
        (lambda t: [t.pop(k) for k in list(t) if ".experts.3." in k], ["3 weights are missing", "experts.3.up_proj"]),
        (lambda t: [t.pop(k) for k in list(t) if "experts" in k and "up_proj" in k], ["missing", "up_proj"]),
        (lambda t: [t.pop(k) for k in list(t) if "layers.1.mlp.experts." in k], ["missing", "layers.1.mlp.experts"]),
        (lambda t: t.update({EXPERT.replace(".3.", ".6."): t[EXPERT].clone()}), ["no place", "experts.6.down_proj"]),
        (lambda t: t.update({"model.layers.9.mlp.x": torch.ones(1)}), ["no place", "model.layers.9.mlp.x"]),
        (lambda t: t.update({"norm.weight": t[NORM].clone()}), ["no place", "norm.weight"]),
        (lambda t: t.update({NORM: torch.ones(7)}), ["another shape", f"{NORM} [7] instead of [32]"]),
    ],
)  # fmt: skip
def test_what_is_missing_or_too_much_is_named(deepseek, tmp_path, change, words):
    refusal = _refusal(_changed(deepseek, tmp_path, change))
    for word in words:
        assert word in refusal


def test_many_names_are_counted(deepseek, tmp_path):
    refusal = _refusal(_changed(deepseek, tmp_path, lambda t: [t.pop(k) for k in list(t) if "layers.0" in k]))
    assert " more" in refusal
    assert len(refusal) < 600


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            ["FP8", "128 x 128"],
        ),
        ({"quantization_config": {"quant_method": "mxfp4"}}, ["MXFP4"]),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ["AWQ", "4 bits"]),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            ["bitsandbytes", "4 bits"],
        ),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, ["modelopt", "NVFP4"]),
        ({"compression_config": {"format": "int-quantized"}}, ["int-quantized"]),
        ({"some_part": {"quantization_config": {"quant_method": "gptq"}}}, ["GPTQ"]),
        ({"quantization_config": {"quant_method": "something\nnew"}}, ["something new"]),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "format": "pack-quantized",
                    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
                }
            },
            ["compressed-tensors", "INT4"],
        ),
    ],
)
def test_a_format_that_the_configuration_names_is_refused(deepseek, tmp_path, config, names):
    refusal = _refusal(_changed(deepseek, tmp_path, _nothing, **config))
    for name in ["quantised", *names, "bfloat16"]:
        assert name in refusal


def _fp8(tensors: Tensors, scale: str | None) -> None:
    for name in list(tensors):
        if name.endswith("down_proj.weight"):
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)
            if scale:
                tensors[name + scale] = torch.ones(1, 1)


def _packed(tensors: Tensors, **parts: torch.Tensor) -> None:
    for name in [n for n in tensors if ".experts." in n]:
        stem = name.removesuffix("weight")
        del tensors[name]
        tensors.update({stem + part: value.clone() for part, value in parts.items()})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: _fp8(t, None), "FP8"),
        (lambda t: t.update({EXPERT: t[EXPERT].to(torch.int8)}), "integers (I8)"),
        (lambda t: _packed(t, weight_packed=torch.ones(2, dtype=torch.int32)), "weight_packed has shape [2]"),
        (lambda t: _packed(t, weight_packed=torch.ones(2, 2, dtype=torch.int32)), "weight_scale is missing"),
        (lambda t: _packed(t, qweight=torch.ones(2, 2, dtype=torch.int32)), "qzeros is missing"),
        (
            lambda t: _packed(t, weight=torch.ones(2, dtype=torch.uint8), weight_scale_2=torch.ones(1)),
            "NVFP4",
        ),
        (lambda t: _packed(t, weight_blocks=torch.ones(2, dtype=torch.uint8)), "MXFP4"),
        (
            lambda t: _packed(t, weight_blocks=torch.ones(2, 2, 2, dtype=torch.uint8)),
            "weight_scales is missing",
        ),
        (lambda t: t.update({"model.layers.1.self_attn.k_scale": torch.ones(1)}), "KV cache"),
    ],
)
def test_a_format_that_is_not_whole_or_not_read_is_refused(deepseek, tmp_path, change, name):
    refusal = _refusal(_changed(deepseek, tmp_path, change))
    assert "quantised" in refusal
    assert name in refusal


@pytest.mark.parametrize("scale", ["_scale_inv", "_scale"])
def test_scaled_weights_are_read_as_plain_ones(deepseek, tmp_path, scale):
    inventory = check_weights(describe(_changed(deepseek, tmp_path, lambda t: _fp8(t, scale))))
    assert (inventory.problem, inventory.quantised) == (None, None)
    assert inventory.widened == sum("down_proj.weight" in key for key in inventory.targets)
    assert "F8_E4M3" in inventory.dtypes


def test_a_format_in_a_file_beside_the_configuration_is_refused(deepseek, tmp_path):
    folder = _changed(deepseek, tmp_path, _nothing)
    beside = folder / "hf_quant_config.json"
    beside.write_text(json.dumps({"quantization": {"quant_algo": None, "kv_cache_quant_algo": None}}))
    check_weights(describe(folder))
    beside.write_text(json.dumps({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}))
    assert "NVFP4" in _refusal(folder)


def test_layers_that_predict_further_tokens_are_left_out_by_right(deepseek, tmp_path):
    def add(tensors: Tensors) -> None:
        tensors["model.layers.2.eh_proj.weight"] = torch.ones(2, 2)

    folder = _changed(deepseek, tmp_path, add, num_nextn_predict_layers=1)
    assert check_weights(describe(folder)).unused == {
        "layers that predict further tokens": ["model.layers.2.eh_proj.weight"]
    }
    assert "layers.2.eh_proj" in _refusal(_changed(deepseek, tmp_path, add, num_nextn_predict_layers=0))


def test_a_layer_that_the_configuration_cut_off_is_no_layer_that_predicts_further_tokens(deepseek, tmp_path):
    """DeepSeek's configuration promises one of these by default."""

    def add(tensors: Tensors) -> None:
        more = {
            n.replace("layers.1.", "layers.2."): t.clone() for n, t in tensors.items() if "layers.1." in n
        }
        tensors.update(more)

    refusal = _refusal(_changed(deepseek, tmp_path, add, num_nextn_predict_layers=1))
    assert "no place in the model: model.layers.2." in refusal


def test_tied_weights_may_be_written_once_or_twice(tmp_path):
    config = configurations()["olmoe"]
    config.tie_word_embeddings = True
    folder = write(config, tmp_path / "once")
    check_weights(describe(folder))

    def twice(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    check_weights(describe(_changed(folder, tmp_path / "twice", twice)))
    neither = _changed(folder, tmp_path / "none", lambda t: t.pop("model.embed_tokens.weight"))
    assert "embed_tokens" in _refusal(neither)


def _sharded(folder: Path, **weight_map: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), ["no weights"]),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), ["pytorch_model.bin", "pickle"]),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ["model.safetensors", "damaged"]),
        (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60)), ["damaged"]),
        (lambda f: (f / "model.safetensors").write_bytes(bytes(range(256)) * 9), ["damaged"]),
        (lambda f: _cut(f / "model.safetensors"), ["model.safetensors", "truncated"]),
        (lambda f: (f / "model.safetensors").write_text(LFS), ["model.safetensors", "Git LFS pointer", "git lfs pull"]),
        (lambda f: _sharded(f, x="model-1.safetensors"), ["1 of 1", "model-1.safetensors"]),
        (lambda f: _sharded(f, x="../model.safetensors"), ["'../model.safetensors'"]),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), ["not a safetensors index"]),
        (lambda f: (f / "model.safetensors.index.json").write_text(LFS), ["Git LFS pointer"]),
        (lambda f: _sharded(f), ["names no file"]),
        (lambda f: (f / "config.json").write_text(LFS), ["config.json", "Git LFS pointer"]),
        (lambda f: (f / "config.json").write_text("[1]"), ["config.json", "expected an object"]),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), ["config.json", "not JSON"]),
        (lambda f: (f / "generation_config.json").write_text(LFS), ["generation_config.json", "Git LFS pointer"]),
        (lambda f: (f / "generation_config.json").write_text("{"), ["generation_config.json"]),
        (lambda f: (f / "generation_config.json").write_text('{"eos_token_id": "x"}'), ["eos_token_id 'x'"]),
    ],
)  # fmt: skip
def test_a_damaged_or_absent_file_is_named(deepseek, tmp_path, damage, words):
    folder = _changed(deepseek, tmp_path, _nothing)
    damage(folder)
    refusal = _refusal(folder)
    for word in words:
        assert word in refusal


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_a_tensor_in_two_files_is_named(deepseek, tmp_path):
    folder = _changed(deepseek, tmp_path, _nothing)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({NORM: torch.ones(32)}, folder / "b.safetensors")
    _sharded(folder, x="a.safetensors", y="b.safetensors")
    assert NORM in _refusal(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"n_group": 6}, ["n_group = 6", "6 experts", "n_group = 3 or fewer"]),
        ({"n_group": 4}, ["n_group = 4", "6 experts"]),
        ({"n_group": 0}, ["n_group = 0"]),
        ({"topk_group": 3}, ["topk_group = 3", "n_group = 2"]),
        ({"topk_group": 0}, ["topk_group = 0"]),
        ({"num_experts_per_tok": 7}, ["num_experts_per_tok = 7", "6 experts"]),
        ({"num_experts_per_tok": 0}, ["num_experts_per_tok = 0"]),
        ({"hidden_size": -1}, ["config.json"]),
        ({"hidden_act": "none such"}, ["config.json", "none such"]),
        pytest.param(
            {"rope_parameters": {"rope_type": "none such"}}, ["config.json", "none such"], marks=same_version
        ),
        ({"num_attention_heads": "four"}, ["config.json", "num_attention_heads"]),
        ({"dtype": "float8_e4m3fn"}, ["config.json", "float8_e4m3fn"]),
        ({"model_type": "none such"}, ["config.json", "'none such'", "transformers"]),
        ({"model_type": None}, ["config.json", "model_type"]),
        ({"model_type": ["deepseek_v3"]}, ["config.json", "model_type"]),
        ({"model_type": "bert"}, ["bert"]),
        ({"text_config": {"hidden_size": 32}}, ["config.json"]),
        ({"vocab_size": [1, 2]}, ["config.json"]),
        ({"__class__": "x"}, ["config.json"]),
    ],
)
def test_an_impossible_configuration_is_named(deepseek, tmp_path, config, words):
    refusal = _refusal(_changed(deepseek, tmp_path, _nothing, **config))
    for word in words:
        assert word in refusal
