"""Which class of transformers makes text of text alone with a configuration: always its own code."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from wingspan.errors import InputError


@dataclass(frozen=True)
class TextClass:
    """A class, and the configuration that it takes: the whole, or a part of it.

    Args:
        wraps: it has other parts than text too.
    """

    model: type[PreTrainedModel]
    config: PreTrainedConfig
    wraps: bool = False


def text_class(config: PreTrainedConfig) -> TextClass:
    """The causal language model of a configuration, else the model of several parts whose text part is one.

    Raises:
        InputError: transformers has neither, or it makes text in another way than token after token.
    """
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        model = _first(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config)
        of_text = model.config_class is config.sub_configs.get("text_config")
        taken = config.get_text_config() if of_text else config
        return TextClass(model, taken, wraps=taken.get_text_config() is not taken)
    whole, kind = config, f"type {config.model_type!r}"
    if type(config) not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        raise InputError(
            f"transformers has no model of {kind} that makes text by itself; give the whole that it is a part of, or "
            "another model"
        )
    model = _first(MODEL_FOR_MULTIMODAL_LM_MAPPING[type(config)], config)
    if model.forward is PreTrainedModel.forward:
        # It speaks as well, and its forward is that of a part: the one that has a model of its own.
        parts = (getattr(config, name) for name in config.sub_configs)
        whole = next((part for part in parts if type(part) in MODEL_FOR_MULTIMODAL_LM_MAPPING), config)
        model = _first(MODEL_FOR_MULTIMODAL_LM_MAPPING[type(whole)], whole)
    takes = inspect.signature(model.forward).parameters
    if "decoder_input_ids" in takes or not {"input_ids", "position_ids", "past_key_values"} <= set(takes):
        raise InputError(f"the model of {kind} does not make text token after token; use another model")
    return TextClass(model, whole, wraps=whole.get_text_config() is not whole)


def _first(found: Any, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that the configuration names, where there are several."""
    models: list[type[PreTrainedModel]] = [*found] if isinstance(found, list | tuple) else [found]
    named = [model for model in models if model.__name__ in (config.architectures or ())]
    return (named or models)[0]
