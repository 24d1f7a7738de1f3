"""The MODEL argument of every command: a checkpoint's folder, a bare `config.json`, or the name of a preset."""

from __future__ import annotations

from pathlib import Path

import wingspan
from wingspan.errors import InputError

# Found by path, not through `wingspan.models`, which would import torch.
_PRESETS = Path(wingspan.__file__).parent / "models" / "presets"


def preset_names() -> list[str]:
    """Names of the presets of the seed's architecture."""
    return sorted(file.stem for file in _PRESETS.glob("*.json"))


def find_model(text: str) -> Path:
    """The folder or configuration file that `text` means; raises `InputError` where there is none."""
    path = Path(text)
    if (path / "config.json").is_file() or path.is_file():
        return path
    if text in preset_names():
        return _PRESETS / f"{text}.json"
    if path.is_dir():
        raise InputError(
            f"{path}: no config.json in this folder; give a checkpoint in the Hugging Face format"
        )
    raise InputError(
        f"{text}: no such folder or file, and no preset; presets are {', '.join(preset_names())}"
    )


def find_checkpoint(text: str) -> Path:
    """The folder of a model whose weights are wanted too."""
    path = find_model(text)
    if not path.is_dir():
        raise InputError(
            f"{text}: a configuration without weights; `wingspan create {text} FOLDER` writes random ones"
        )
    return path
