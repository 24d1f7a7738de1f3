"""The types of model whose experts are known here, whether they run or not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from wingspan.runtime.model.experts_table import OUTSIDE_REGISTRY

_OF_OTHER_MODULES = ("kimi_k25", "nemotron_h_omni")
"""Wrappers whose text part is a module of another type."""

_PARTS = ("glm4v_moe_text", "muse_spark_text", "qwen3_omni_moe_text", "qwen3_vl_moe_text")
"""Text parts without a head of their own, whose sizes the planner knows too."""


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
    found = {t for t in {*whole, *other} if t in CONFIG_MAPPING and _module_of(t) in served}
    return sorted(found | {*_OF_OTHER_MODULES, *_PARTS})


def _module_of(model_type: str) -> str:
    return str(CONFIG_MAPPING[model_type].__module__).split(".")[2]
