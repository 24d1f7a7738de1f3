"""Where a model lies: a checkpoint's folder, a bare `config.json`, a preset by name, or what a deployment names."""

from __future__ import annotations

from pathlib import Path

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.specs.models import MODEL_PRESETS, load_model, model_presets

_PUBLISHED = {"name", "source", "precision", "remarks", "max_context"}
"""What may differ between a model as planned and a checkpoint of it: its names, and what it is stored in."""


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


def checkpoint_of(deployment: Deployment, source: str, asked: Path | str | None) -> Path:
    """The folder of a deployment's weights, checked to be of its model.

    Args:
        deployment: whose model is meant.
        source: what to call it.
        asked: another folder than it names.

    Raises:
        InputError: no folder is named, or one without weights or of another model.
    """
    given = asked or deployment.checkpoint
    if given is None:
        raise InputError(
            f"{source}: names no folder of weights (its model is {deployment.model.name}); give `checkpoint` FOLDER"
        )
    try:
        folder = find_checkpoint(str(given))
    except InputError as error:
        where = "`checkpoint` " if asked else f"{source}: its checkpoint "
        raise InputError(f"{where}{error}; give another folder as `checkpoint`") from None
    own, planned = (
        m.model_dump(mode="json", exclude=_PUBLISHED) for m in (load_model(str(folder)), deployment.model)
    )
    for key, value in planned.items():
        if own[key] != value:
            raise InputError(
                f"{folder}: {key} is {_short(own[key])}, and {_short(value)} in {source}; give the folder of a "
                f"{deployment.model.name} as `checkpoint`"
            )
    return folder


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
