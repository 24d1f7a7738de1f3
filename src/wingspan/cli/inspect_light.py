"""What a model's `config.json` and the headers of its weight files say, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.runtime.model.quantised import format_said
from wingspan.specs.families import model_from_config
from wingspan.specs.model import ModelSpec

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LARGEST_HEADER_BYTES = 100_000_000
"""More is no header. Source: huggingface/safetensors, README.md, section Format."""


@dataclass(frozen=True)
class Figures:
    """Counts and sizes of a model, in the numbers of values that its configuration gives its weights."""

    summary: dict[str, Any]
    """The fields of the runtime's `ModelSummary`, as far as they need no transformers."""
    weights: dict[str, Any] | None
    """Files beside the configuration; None where there is no folder."""


def figures(path: Path, changes: Mapping[str, Any]) -> Figures | None:
    """Everything that needs no torch; None where the planner does not know the model's family.

    Args:
        path: a folder with `config.json`, or such a file.
        changes: values in the place of the configuration's.

    Raises:
        InputError: the configuration is not JSON, or a weight file is damaged.
    """
    file = path / "config.json" if path.is_dir() else path
    config = read_json(file)
    try:
        spec = model_from_config({"name": file.stem, **config, **changes}, str(file))
    except InputError:
        return None  # a family that only the runtime knows, or a mistake that it names
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    dtype = next(
        (part[key] for part in (config, text) for key in ("dtype", "torch_dtype") if part.get(key)),
        "bfloat16",
    )
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
    }


def _files(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    files = sorted(folder.glob("*.safetensors"))
    headers = [_header(file) for file in files]
    dtypes = {str(tensor.get("dtype")) for header in headers for tensor in header.values()}
    return {
        "format": format_said(folder, config) or ", ".join(sorted(dtypes)) or "no weights",
        "files": len(files),
        "tensors": sum(map(len, headers)),
        "bytes": sum(file.stat().st_size for file in files),
    }


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file: 8 bytes with the header's length, then JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(_LARGEST_HEADER_BYTES, file.stat().st_size):
                raise InputError(f"{file}: not a safetensors file, or cut off; fetch it again")
            header = json.loads(stream.read(length))
        return {name: about for name, about in header.items() if name != "__metadata__" and "dtype" in about}
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{file}: not a safetensors file, or cut off; fetch it again") from None
