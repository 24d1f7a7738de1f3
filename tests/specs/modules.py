"""transformers' modules that make text, of types whose head only a wrapper has too."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedConfig


def text_modules(text: PreTrainedConfig, **fields: Any) -> tuple[Module, bool]:
    """Those of a configuration, and whether the head is among them.

    Args:
        text: of the part that makes text.
        fields: as `from_config` takes them.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if text.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForCausalLM.from_config(text, **fields), True
    module = import_module(type(text).__module__.replace(".configuration_", ".modeling_"))
    kind = next(
        found
        for name, found in vars(module).items()
        if getattr(found, "config_class", None) is type(text) and name.endswith(("TextModel", "4Model"))
    )
    return kind._from_config(text, **fields), False


def parameters_of(text: PreTrainedConfig) -> int:
    """How many there are that compute; where the head is not among them, with it."""
    from wingspan.runtime.model.experts_table import cut_idle

    modules, with_head = text_modules(text)
    tied = getattr(text, "tie_word_embeddings", False)
    cut_idle(modules)
    head = 0 if with_head or tied else text.vocab_size * text.hidden_size
    return head + sum(parameter.numel() for parameter in modules.parameters())
