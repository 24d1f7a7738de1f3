"""The MODEL argument of every command: a checkpoint's folder, a bare `config.json`, or the name of a preset."""

from __future__ import annotations

from pathlib import Path

from wingspan.errors import InputError
from wingspan.specs.models import MODEL_PRESETS, model_presets


def find_model(text: str) -> Path:
    """The folder or configuration file that `text` means; raises `InputError` where there is none."""
    path = Path(text)
    if (path / "config.json").is_file() or path.is_file():
        return path
    if text in model_presets():
        return MODEL_PRESETS / f"{text}.json"
    if path.is_dir():
        raise InputError(
            f"{path}: no config.json in this folder; give a checkpoint in the Hugging Face format"
        )
    raise InputError(
        f"{text}: no such folder or file, and no preset; presets are {', '.join(model_presets())}"
    )


def find_checkpoint(text: str) -> Path:
    """The folder of a model whose weights are wanted too."""
    path = find_model(text)
    if not path.is_dir():
        raise InputError(
            f"{text}: a configuration without weights; `wingspan create {text} FOLDER` writes random ones"
        )
    return path
