"""The types of model whose experts are known, and which of them run."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from wingspan.runtime.model.architecture import SAME_MODULES
from wingspan.runtime.model.experts_table import OUTSIDE_REGISTRY


@cache
def architectures() -> list[str]:
    """Model types of every module of transformers with experts that are known here, wrappers of text too."""
    folder = Path(transformers.__file__).parent / "models"
    experts = rf"^@use_experts_implementation|^class ({'|'.join(OUTSIDE_REGISTRY)})\("
    served = {
        file.parent.name
        for file in folder.glob("*/modeling_*.py")
        if re.search(experts, file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    whole = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES | modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    )
    other = modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    return sorted(t for t in {*whole, *other} if t in CONFIG_MAPPING and _module_of(t) in served)


def makes_text(model_type: str) -> bool:
    """Whether transformers has a causal language model of this type, or of one with the same modules: such runs."""
    return SAME_MODULES.get(model_type, model_type) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def text_type(model_type: str) -> str:
    """The type of the part that makes text: another one where this is a wrapper of several parts."""
    return str(CONFIG_MAPPING[model_type]().get_text_config().model_type)


def _module_of(model_type: str) -> str:
    return str(CONFIG_MAPPING[model_type].__module__).split(".")[2]
