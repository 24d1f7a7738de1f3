"""The text part of a model of several parts: what makes text of text alone, of transformers' own modules."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

NOT_OF_TEXT = ("vision_moe",)
"""Modules of a text part, by their names, that are computed for tokens of pictures only (ERNIE's second experts)."""


def text_paths(model: nn.Module, config: PreTrainedConfig) -> list[str]:
    """Paths of the modules that are the text part.

    Args:
        model: the whole.
        config: its own.
    """
    text = type(config.get_text_config())
    return [
        path
        for path, module in model.named_modules()
        if path and isinstance(module, PreTrainedModel) and type(module.config) is text
    ]


def drop_other_parts(model: PreTrainedModel) -> None:
    """Take out of a whole model what sees or hears: no rank reads or holds it.

    What stays is the text part, what lies above it, and the head.

    Args:
        model: without memory behind its parameters.
    """
    head = model.get_output_embeddings()
    kept = {path for path, module in model.named_modules() if module is head}
    _drop(model, "", kept | {*text_paths(model, model.config)})
    for path, module in [*model.named_modules()]:
        for name in NOT_OF_TEXT:
            if name in module._modules:
                model.get_submodule(path)._modules[name] = None


def _drop(module: nn.Module, path: str, kept: set[str]) -> None:
    """Take out of a module that lies above those kept whatever else has weights."""
    for name in module._parameters:
        module._parameters[name] = None
        # Else transformers gives it first values when it has loaded the others.
        module._is_hf_initialized = True  # type: ignore[assignment]
    for name, child in [*module.named_children()]:
        inside = f"{path}.{name}" if path else name
        if inside in kept:
            continue
        if any(keep.startswith(f"{inside}.") for keep in kept):
            _drop(child, inside, kept)
        elif any(True for _ in child.parameters()):
            module._modules[name] = None
