"""Why a run may leave a tensor of the checkpoint out: the few reasons that are no mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from wingspan.runtime.model.places import TensorPlaces


def judge(
    left: Mapping[str, str], model: PreTrainedModel, config: PreTrainedConfig
) -> tuple[dict[str, list[str]], list[str]]:
    """Tell tensors that are left out by right from those that are a mistake.

    Args:
        left: tensors that the model does not take, with the names they would have in it.
        model: the text model, on the meta device.
        config: the checkpoint's, with its other parts (vision ...).

    Returns:
        Those left out by right, by the reason; and the others.
    """
    unused: dict[str, list[str]] = {}
    declared = _declared(model)
    rest = []
    for key, target in left.items():
        if declared and (declared.search(target) or declared.search(key)):
            unused.setdefault("declared unused by transformers' model", []).append(key)
        elif _is_of_next_token_layer(key, config):
            unused.setdefault("layers that predict further tokens", []).append(key)
        else:
            rest.append(key)
    others = _of_other_parts(rest, model, config) if rest else set()
    if others:
        unused["other parts than the text model"] = sorted(others)
    return unused, [key for key in rest if key not in others]


def _declared(model: PreTrainedModel) -> re.Pattern[str] | None:
    """Names that transformers' model says it does not need, and buffers that its older versions wrote down."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.add(r"(^|\.)position_ids$")
    return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns))) if patterns else None


def _is_of_next_token_layer(key: str, config: PreTrainedConfig) -> bool:
    """Whether a tensor belongs to the layers behind the last one, which predict tokens after the next."""
    text = config.get_text_config()
    further = getattr(text, "num_nextn_predict_layers", None) or 0
    layer = re.search(r"(?:^|\.)layers\.(\d+)\.", key)
    return layer is not None and 0 <= int(layer[1]) - text.num_hidden_layers < further


def _of_other_parts(keys: list[str], model: PreTrainedModel, config: PreTrainedConfig) -> set[str]:
    """Tensors of the model's other parts (vision, audio), where its text model runs alone."""
    whole_class = _class_of_whole(config)
    if type(model.config) is type(config) or whole_class is None:
        return set()
    try:
        with torch.device("meta"):
            whole = whole_class._from_config(config)
    except Exception:
        return set()  # Nothing is known of other parts then, and their tensors are named as a mistake.
    text_type = type(config.get_text_config())
    modules = whole.named_modules()
    text = tuple(
        f"{n}." for n, m in modules if isinstance(m, PreTrainedModel) and type(m.config) is text_type
    )
    places = TensorPlaces(whole)
    return {
        key
        for key, place in places.of_all(keys).items()
        if place.parameters[0] in places.parameters and not place.parameters[0].startswith(text)
    }


def _class_of_whole(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """transformers' class of the whole model that a configuration names."""
    for name in config.architectures or ():
        found = getattr(transformers, str(name), None)
        if (
            isinstance(found, type)
            and issubclass(found, PreTrainedModel)
            and found.config_class is type(config)
        ):
            return found
    return None
