"""Find a model: a preset by its name, a `config.json`, or a folder that holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.reading import check_kind, is_lfs_pointer, json_value, lfs_pointer_error
from wingspan.specs.families import UnknownModelError, model_from_config, text_part
from wingspan.specs.from_weights import counted_model
from wingspan.specs.model import ModelSpec
from wingspan.specs.reading import near_name
from wingspan.specs.tensors import tensors_in

MODEL_PRESETS = Path(__file__).parent / "presets" / "models"
"""One `<name>.json` per preset, each a `config.json` that any command takes as a model."""


def load_model(name_or_path: str, *, from_weights: bool = False) -> ModelSpec:
    """The sizes of a model; those of a type that is not known are counted from its tensors, where they are there.

    Args:
        name_or_path: a preset's name, a `config.json`, or a checkpoint's folder.
        from_weights: count those of a known type too.

    Raises:
        InputError: neither a preset nor a readable config, the line names the presets; or sizes are to be counted
            where no weights are.
    """
    if from_weights and not any(Path(name_or_path).glob("*.safetensors")):
        raise InputError(
            f"{name_or_path}: sizes are to be counted from weights, and none are there; give a checkpoint's folder"
        )
    if name_or_path in model_presets():
        config = _read_json(MODEL_PRESETS / f"{name_or_path}.json")
        return model_from_config({"name": name_or_path, **config}, f"preset {name_or_path}")
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(
            f"{name_or_path}: neither a preset, a config.json nor a folder with one; "
            + (f"did you mean {meant}? " if (meant := near_name(name_or_path, model_presets())) else "")
            + f"presets: {', '.join(model_presets())}"
        )
    config = _quantised_beside(_read_json(path), path.parent)
    name = path.parent.name if path.name == "config.json" else path.stem
    config = {"name": name, **config}
    if from_weights:
        return counted_model(text_part(config), tensors_in(path.parent), str(path.parent))
    try:
        return model_from_config(config, str(path))
    except UnknownModelError:
        tensors = tensors_in(path.parent) if Path(name_or_path).is_dir() else {}
        if not tensors:
            raise
        return counted_model(text_part(config), tensors, str(path.parent))


def _quantised_beside(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config with what `hf_quant_config.json` says beside it, as ModelOpt writes it."""
    beside = folder / "hf_quant_config.json"
    if "quantization_config" in config or not beside.is_file():
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **_read_json(beside)}}


def model_presets() -> list[str]:
    """Names of the models that come with Wingspan."""
    return sorted(file.stem for file in MODEL_PRESETS.glob("*.json"))


def preset_type(name: str) -> str:
    """The `model_type` of a preset, as its config says it."""
    return str(_read_json(MODEL_PRESETS / f"{name}.json").get("model_type"))


def _read_json(path: Path) -> dict[str, Any]:
    if is_lfs_pointer(path):
        raise lfs_pointer_error(path)
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, found {type(data).__name__}")
    check_kind(data, str(path), "a model's configuration")
    return data
