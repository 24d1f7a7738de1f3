"""Checkpoints in every quantised format, each with the plain twin that means the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, PreTrainedConfig, Qwen3MoeConfig

from tests.runtime.checkpoints import write
from tests.runtime.model.test_formats import E2M1, nibbles, words


@dataclass(frozen=True)
class Sizes:
    """How large a checkpoint is; an expert has three matrices of `hidden` x `inner`."""

    hidden: int = 64
    inner: int = 32
    experts: int = 6
    layers: int = 2

    @property
    def of_all(self) -> dict[str, object]:
        """What every configuration says of them."""
        return {
            "vocab_size": 128, "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "num_experts_per_tok": 2,
            "eos_token_id": None, "bos_token_id": None, "pad_token_id": None,
        }  # fmt: skip


def _qwen(sizes: Sizes) -> PreTrainedConfig:
    return Qwen3MoeConfig(
        **sizes.of_all, intermediate_size=64, num_experts=sizes.experts, moe_intermediate_size=sizes.inner
    )


def _gpt_oss(sizes: Sizes) -> PreTrainedConfig:
    return GptOssConfig(
        **sizes.of_all, intermediate_size=sizes.inner, num_local_experts=sizes.experts, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"][-sizes.layers :],
    )  # fmt: skip


Tensors = dict[str, torch.Tensor]
Quantise = Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Of a matrix (O, I): its parts by the ends of their names, and what they mean in BF16."""


def _grid(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from 0 up, and a scale for each group of inputs."""
    most, rows = (1 << bits) - 1, weight.shape[0]
    scale = weight.reshape(rows, -1, group).abs().amax(-1) / (most // 2)
    codes = (weight / scale.repeat_interleave(group, 1)).round().long() + (1 << (bits - 1))
    return codes.clamp(0, most), scale


def _fp8_blocks(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    rows, columns = -(-weight.shape[0] // 48), -(-weight.shape[1] // 48)
    scale = torch.rand(rows, columns) / 100 + 0.001
    wide = scale.repeat_interleave(48, 0)[: weight.shape[0]].repeat_interleave(48, 1)[:, : weight.shape[1]]
    small = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale_inv": scale}, (small.float() * wide).bfloat16()


def _fp8_tensor(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().max() / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale": scale}, (small.float() * scale).bfloat16()


def _fp8_outputs(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    parts = {"weight": small, "weight_scale": scale, "input_scale": torch.ones(1)}
    return parts, (small.float() * scale).bfloat16()


def _mxfp8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    exponent = (weight.unflatten(1, (-1, 32)).abs().amax(-1) / 448).log2().ceil()
    wide = (2**exponent).repeat_interleave(32, 1)
    small = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale": (exponent + 127).to(torch.uint8)}, (
        small.float() * wide
    ).bfloat16()


def _packed(bits: int) -> Quantise:
    def quantise(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        codes, scale = _grid(weight, bits, 16)
        scale = scale.bfloat16()
        shape = torch.tensor(weight.shape)
        ends = {"weight_packed": words(codes, bits), "weight_scale": scale, "weight_shape": shape}
        meant = (codes - (1 << (bits - 1))) * scale.float().repeat_interleave(16, 1)
        return ends, meant.bfloat16()

    return quantise


def _nvfp4(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    values = torch.tensor(E2M1)
    scale = (weight.reshape(weight.shape[0], -1, 16).abs().amax(-1) / 6 * 8).to(torch.float8_e4m3fn)
    wide = scale.float().repeat_interleave(16, 1) * 0.125
    codes = (weight[..., None] / wide[..., None].clamp_min(1e-9) - values).abs().argmin(-1)
    ends = {"weight": nibbles(codes), "weight_scale": scale, "weight_scale_2": torch.tensor(0.125)}
    return ends, (values[codes] * wide).bfloat16()


def _nvfp4_packed(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    parts, meant = _nvfp4(weight)
    ends = {
        "weight_packed": parts["weight"],
        "weight_scale": parts["weight_scale"],
        "weight_global_scale": 1 / parts["weight_scale_2"].reshape(1),
    }
    return ends, meant


def _mxfp4(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Of all experts at once (E, I, O), whose values are drawn anew."""
    experts, inputs, outputs = weight.shape
    codes = torch.randint(0, 16, (experts * outputs, inputs), generator=torch.Generator().manual_seed(1))
    ends = {
        "_blocks": nibbles(codes).reshape(experts, outputs, inputs // 32, 16),
        "_scales": torch.full((experts, outputs, inputs // 32), 123, dtype=torch.uint8),
    }
    meant = torch.tensor(E2M1)[codes].reshape(experts, outputs, inputs) / 16
    return ends, meant.transpose(1, 2).bfloat16()


def _gptq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    codes, scale = _grid(weight, 4, 32)
    zeros = torch.full_like(scale, 7).long()
    ends = {
        "qweight": words(codes, 4).T.contiguous(),
        "qzeros": words(zeros.T, 4),
        "scales": scale.T.contiguous().half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // 32,
    }
    meant = (codes - 8) * scale.half().float().repeat_interleave(32, 1)
    return ends, meant.bfloat16()


def _awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    codes, scale = _grid(weight, 4, 32)
    order = [place + at for at in range(0, weight.shape[0], 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
    zeros = torch.full_like(scale, 8).long().T
    ends = {
        "qweight": words(codes.T[:, order], 4),
        "qzeros": words(zeros[:, order], 4),
        "scales": scale.T.contiguous().half(),
    }
    meant = (codes - 8) * scale.half().float().repeat_interleave(32, 1)
    return ends, meant.bfloat16()


def _group(bits: int) -> dict[str, object]:
    weights = {"num_bits": bits, "type": "int", "group_size": 16}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Args:
        quantise: one tensor.
        said: `quantization_config`.
        config: of a model in it.
        names: what the names of quantised tensors end with: projections, all experts among them.
    """

    quantise: Quantise
    said: dict[str, object]
    config: Callable[[Sizes], PreTrainedConfig] = _qwen
    names: tuple[str, ...] = ("proj.weight",)


FORMATS = {
    "fp8-blocks": Format(_fp8_blocks, {"quant_method": "fp8", "weight_block_size": [48, 48]}),
    "fp8-tensor": Format(_fp8_tensor, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "fp8-outputs": Format(_fp8_outputs, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "mxfp8": Format(_mxfp8, {"quant_method": "modelopt", "quant_algo": "MXFP8"}),
    "int4": Format(_packed(4), _group(4)),
    "int8": Format(_packed(8), _group(8)),
    "nvfp4": Format(_nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "nvfp4-packed": Format(
        _nvfp4_packed, {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    ),
    "mxfp4": Format(
        _mxfp4, {"quant_method": "mxfp4"}, _gpt_oss, ("experts.gate_up_proj", "experts.down_proj")
    ),
    "gptq": Format(_gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}),
    "awq": Format(_awq, {"quant_method": "awq", "bits": 4, "group_size": 32}),
}


def twins(folder: Path, name: str, sizes: Sizes = Sizes(), *, alike: bool = False) -> tuple[Path, Path]:
    """A checkpoint in a format and the plain one, in BF16, that means the same.

    Args:
        folder: where both are written.
        name: of the format.
        sizes: of the model.
        alike: all layers and experts have the same weights, which is quicker to quantise.
    """
    form = FORMATS[name]
    source = write(form.config(sizes), folder / "source", save_original_format=True)
    config = json.loads((source / "config.json").read_text())
    small: Tensors = {}
    plain: Tensors = {}
    quantised: dict[str, tuple[Tensors, torch.Tensor]] = {}
    for key, tensor in load_file(source / "model.safetensors").items():
        if not key.endswith(form.names):
            small[key] = plain[key] = tensor
            continue
        kind = re.sub(r"\d+", "", key) if alike else key
        if kind not in quantised:
            quantised[kind] = form.quantise(tensor)
        parts, meant = quantised[kind]
        small |= {key.removesuffix("weight") + end: part.clone() for end, part in parts.items()}
        plain[key] = meant.clone()
    return (
        _written(folder / "small", small, config | {"quantization_config": form.said}),
        _written(folder / "plain", plain, config),
    )


def _written(folder: Path, tensors: Tensors, config: dict[str, object]) -> Path:
    folder.mkdir()
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder
