"""What a model's `config.json` and the headers of its weight files say, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.runtime.model.quantised import format_said
from wingspan.specs.families import model_from_config, text_part
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.tensors import tensors_in

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Figures:
    """Counts and sizes of a model, in the numbers of values that its configuration gives its weights."""

    summary: dict[str, Any]
    """The fields of the runtime's `ModelSummary`, as far as they need no transformers."""
    weights: dict[str, Any] | None
    """Files beside the configuration; None where there is no folder."""


def figures(path: Path, changes: Mapping[str, Any], *, from_weights: bool = False) -> Figures | None:
    """Everything that needs no torch; None where the planner does not know the model's family.

    Args:
        path: a folder with `config.json`, or such a file.
        changes: values in the place of the configuration's.
        from_weights: count sizes from the tensors of the folder's files, also where the family is known.

    Raises:
        InputError: the configuration is not JSON, or a weight file is damaged.
    """
    file = path / "config.json" if path.is_dir() else path
    config = read_json(file)
    try:
        spec = (
            model_from_config({"name": file.stem, **config, **changes}, str(file))
            if changes
            else load_model(str(path), from_weights=from_weights)
        )
    except InputError:
        if from_weights:
            raise
        return None  # a family that only the runtime knows, or a mistake that it names
    text = text_part(config)
    dtype = text.get("dtype") or text.get("torch_dtype") or "bfloat16"
    if dtype not in _BYTES:
        return None
    return Figures(
        _summary(config["model_type"], spec, dtype), _files(path, config) if path.is_dir() else None
    )


def _summary(model_type: str, spec: ModelSpec, dtype: str) -> dict[str, Any]:
    counts, experts, value = spec.parameters, spec.experts, _BYTES[dtype]
    inward = {"gate": [experts.intermediate, spec.hidden]} if experts.gated else {}
    matrices = inward | {
        "up": [experts.intermediate, spec.hidden],
        "down": [spec.hidden, experts.intermediate],
    }
    return {
        "model_type": model_type,
        "dtype": dtype,
        "layers": spec.layers,
        "moe_layers": counts.moe_layers,
        "experts_per_layer": experts.count,
        "experts_per_token": experts.per_token,
        "hidden_size": spec.hidden,
        "expert_matrices": matrices,
        "expert_parameters": counts.expert,
        "expert_bytes": counts.expert * value,
        "all_experts_parameters": counts.routed_experts,
        "shared_parameters": counts.beside_experts,
        "total_parameters": counts.total,
        "active_parameters": counts.active,
        "total_bytes": counts.total * value,
        "shared_bytes": counts.beside_experts * value,
        **_published(spec, value),
        **_mtp(spec),
        **({"remarks": list(spec.remarks)} if spec.remarks else {}),
    }


def _mtp(spec: ModelSpec) -> dict[str, int]:
    """Layers that predict further tokens, and the parameters of all; nothing where there are none."""
    count = spec.mtp_layers
    return {"mtp_layers": count, "mtp_parameters": count * spec.mtp_parameters.total} if count else {}


def _published(spec: ModelSpec, value_bytes: int) -> dict[str, Any]:
    """What the files of quantised weights hold; nothing where ranks hold them as they are published."""
    counts, formats = spec.parameters, spec.precision
    if all(kind.bytes >= value_bytes for kind in formats.weights.values()):
        return {}
    parts = {
        "attention": counts.attention,
        "dense": counts.dense,
        "shared": counts.shared_experts,
        "experts": counts.routed_experts,
    }
    size = sum(values * formats.weights[part].weight_bytes for part, values in parts.items())
    size += (counts.total - sum(parts.values())) * formats.unquantised.weight_bytes
    return {"published": formats.weights_described, "published_bytes": round(size)}


def _files(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    files = sorted(folder.glob("*.safetensors"))
    tensors = tensors_in(folder)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    return {
        "format": format_said(folder, config) or ", ".join(sorted(dtypes)) or "no weights",
        "files": len(files),
        "tensors": len(tensors),
        "bytes": sum(file.stat().st_size for file in files),
    }
