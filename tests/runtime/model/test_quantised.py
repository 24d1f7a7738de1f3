"""A run from quantised weights equals the run from their plain twin, in every format and on any ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, Qwen3MoeConfig

from tests.runtime.checkpoints import write
from tests.runtime.model.test_formats import E2M1, nibbles, words
from tests.runtime.test_run import execute
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.run import RunResult

_WIDTHS = {
    "vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "max_position_embeddings": 64, "num_experts_per_tok": 2, "eos_token_id": None,
    "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
QWEN = Qwen3MoeConfig(**_WIDTHS, intermediate_size=64, num_experts=6, moe_intermediate_size=32)
OSS = GptOssConfig(
    **_WIDTHS, intermediate_size=32, num_local_experts=6, sliding_window=16,
    layer_types=["sliding_attention", "full_attention"],
)  # fmt: skip

Tensors = dict[str, torch.Tensor]
Quantise = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Of a name without its end and a matrix (O, I): its parts by their names, and what they mean in BF16."""


def _grid(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from 0 up, and a scale for each group of inputs."""
    most, rows = (1 << bits) - 1, weight.shape[0]
    scale = weight.reshape(rows, -1, group).abs().amax(-1) / (most // 2)
    codes = (weight / scale.repeat_interleave(group, 1)).round().long() + (1 << (bits - 1))
    return codes.clamp(0, most), scale


def _fp8_blocks(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    rows, columns = -(-weight.shape[0] // 48), -(-weight.shape[1] // 48)
    scale = torch.rand(rows, columns) / 100 + 0.001
    wide = scale.repeat_interleave(48, 0)[: weight.shape[0]].repeat_interleave(48, 1)[:, : weight.shape[1]]
    small = (weight / wide).to(torch.float8_e4m3fn)
    return {stem + "weight": small, stem + "weight_scale_inv": scale}, (small.float() * wide).bfloat16()


def _fp8_outputs(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    parts = {stem + "weight": small, stem + "weight_scale": scale, stem + "input_scale": torch.ones(1)}
    return parts, (small.float() * scale).bfloat16()


def _packed(bits: int) -> Quantise:
    def quantise(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        codes, scale = _grid(weight, bits, 16)
        scale = scale.bfloat16()
        shape = torch.tensor(weight.shape)
        ends = {"weight_packed": words(codes, bits), "weight_scale": scale, "weight_shape": shape}
        meant = (codes - (1 << (bits - 1))) * scale.float().repeat_interleave(16, 1)
        return {stem + end: part for end, part in ends.items()}, meant.bfloat16()

    return quantise


def _nvfp4(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    values = torch.tensor(E2M1)
    scale = (weight.reshape(weight.shape[0], -1, 16).abs().amax(-1) / 6 * 8).to(torch.float8_e4m3fn)
    wide = scale.float().repeat_interleave(16, 1) * 0.125
    codes = (weight[..., None] / wide[..., None].clamp_min(1e-9) - values).abs().argmin(-1)
    ends = {"weight": nibbles(codes), "weight_scale": scale, "weight_scale_2": torch.tensor(0.125)}
    return {stem + end: part for end, part in ends.items()}, (values[codes] * wide).bfloat16()


def _gptq(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    codes, scale = _grid(weight, 4, 32)
    zeros = torch.full_like(scale, 7).long()
    ends = {
        "qweight": words(codes, 4).T.contiguous(),
        "qzeros": words(zeros.T, 4),
        "scales": scale.T.contiguous().half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // 32,
    }
    meant = (codes - 8) * scale.half().float().repeat_interleave(32, 1)
    return {stem + end: part for end, part in ends.items()}, meant.bfloat16()


def _awq(stem: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    codes, scale = _grid(weight, 4, 32)
    order = [place + at for at in range(0, weight.shape[0], 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
    zeros = torch.full_like(scale, 8).long().T
    ends = {
        "qweight": words(codes.T[:, order], 4),
        "qzeros": words(zeros[:, order], 4),
        "scales": scale.T.contiguous().half(),
    }
    meant = (codes - 8) * scale.half().float().repeat_interleave(32, 1)
    return {stem + end: part for end, part in ends.items()}, meant.bfloat16()


def _group(bits: int) -> dict[str, object]:
    weights = {"num_bits": bits, "type": "int", "group_size": 16}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


FORMATS: dict[str, tuple[Quantise, dict[str, object]]] = {
    "fp8-blocks": (_fp8_blocks, {"quant_method": "fp8", "weight_block_size": [48, 48]}),
    "fp8-outputs": (_fp8_outputs, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "int4": (_packed(4), _group(4)),
    "int8": (_packed(8), _group(8)),
    "nvfp4": (_nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "gptq": (_gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}),
    "awq": (_awq, {"quant_method": "awq", "bits": 4, "group_size": 32}),
}


def _twins(folder: Path, quantise: Quantise, said: dict[str, object]) -> tuple[Path, Path]:
    """A checkpoint whose projections are quantised, all experts among them, and the plain one that means the same."""
    source = write(QWEN, folder / "source", save_original_format=True)
    config = json.loads((source / "config.json").read_text())
    small: Tensors = {}
    plain: Tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith("proj.weight"):
            parts, plain[name] = quantise(name.removesuffix("weight"), tensor)
            small |= {part: value.contiguous() for part, value in parts.items()}
        else:
            small[name] = plain[name] = tensor
    return (
        _written(folder / "small", small, config | {"quantization_config": said}),
        _written(folder / "plain", plain, config),
    )


def _written(folder: Path, tensors: Tensors, config: dict[str, object]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _tokens(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


@pytest.mark.parametrize(
    ("name", "ranks", "slots"),
    [*((name, 3, 2) for name in FORMATS), ("int4", 1, 6), ("int4", 4, 2), ("fp8-blocks", 4, 2)],
)
def test_a_run_equals_that_of_the_plain_twin(tmp_path, name, ranks, slots):
    small, plain = _twins(tmp_path, *FORMATS[name])
    got, wanted = (execute(folder, ranks, slots, tmp_path) for folder in (small, plain))
    assert got.check is not None
    assert got.check.passed
    assert _tokens(got) == _tokens(wanted)


@pytest.mark.parametrize("ranks", [1, 3])
def test_fused_experts_in_mxfp4(tmp_path, ranks):
    source = write(OSS, tmp_path / "source", save_original_format=True)
    config = json.loads((source / "config.json").read_text())
    small: Tensors = {}
    plain: Tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            small[name] = plain[name] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        codes = torch.randint(0, 16, (experts * outputs, inputs), generator=torch.Generator().manual_seed(1))
        small[name + "_blocks"] = nibbles(codes).reshape(experts, outputs, inputs // 32, 16)
        small[name + "_scales"] = torch.full((experts, outputs, inputs // 32), 123, dtype=torch.uint8)
        meant = torch.tensor(E2M1)[codes].reshape(experts, outputs, inputs) / 16
        plain[name] = meant.transpose(1, 2).contiguous().bfloat16()
    said = {"quantization_config": {"quant_method": "mxfp4"}}
    folders = _written(tmp_path / "small", small, config | said), _written(tmp_path / "plain", plain, config)
    got, wanted = (execute(folder, ranks, 6 // ranks, tmp_path) for folder in folders)
    assert got.check is not None
    assert got.check.passed
    assert _tokens(got) == _tokens(wanted)


def test_of_a_fused_tensor_only_the_asked_experts_are_read(tmp_path):
    blocks = torch.randint(0, 256, (6, 4, 2, 16), generator=torch.Generator().manual_seed(2))
    tensors = {
        "x_blocks": blocks.to(torch.uint8),
        "x_scales": torch.full((6, 4, 2), 127, dtype=torch.uint8),
    }
    folder = _written(tmp_path / "one", tensors, {"model_type": "gpt_oss"})
    read = DequantisedCheckpoint(folder)["x"]
    assert tuple(read.get_shape()) == (6, 64, 4)
    assert torch.equal(read[2:3], read[...][2:3])
