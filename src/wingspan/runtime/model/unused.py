"""Why a run may leave a tensor of the checkpoint out: the few reasons that are no mistake."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from wingspan.runtime.model.places import TensorPlaces
from wingspan.runtime.model.text_part import NOT_OF_TEXT, text_paths


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
    further, surplus = _layers_behind_the_last(left, model, config)
    rest = []
    for key, target in left.items():
        if _split(key)[0] in surplus:
            rest.append(key)
        elif declared and (declared.search(target) or declared.search(key)):
            unused.setdefault("declared unused by transformers' model", []).append(key)
        elif _split(key)[0] in further:
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


def _layers_behind_the_last(
    left: Mapping[str, str], model: PreTrainedModel, config: PreTrainedConfig
) -> tuple[set[int], set[int]]:
    """Numbers of layers that predict further tokens, and of surplus layers, which are as the model's own.

    What predicts further tokens joins two inputs, so it has weights that none of the model's layers has.
    """
    text = config.get_text_config()
    own = {_split(name)[1] for name in model.state_dict()}
    parts: dict[int, set[str]] = {}
    for key, target in left.items():
        number = _split(key)[0]
        if number is not None and number >= text.num_hidden_layers:
            parts.setdefault(number, set()).add(_split(target)[1])
    end = text.num_hidden_layers + (getattr(text, "num_nextn_predict_layers", None) or 0)
    more = {number for number, names in parts.items() if not names <= own}
    return {number for number in more if number < end}, set(parts) - more


def _split(name: str) -> tuple[int | None, str]:
    """The number of the layer that a tensor is in, None where in none, and its name there."""
    layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return (int(layer[1]), name[layer.end() :]) if layer else (None, name)


def _of_other_parts(keys: list[str], model: PreTrainedModel, config: PreTrainedConfig) -> set[str]:
    """Tensors of the model's other parts (vision, audio), where its text model runs alone."""
    own = model.state_dict()
    wholes = ((_class_of_whole(config), config), (type(model), model.config))
    return {key for kind, of in wholes if kind is not None for key in _beside_text(keys, kind, of, own)}


def _beside_text(
    keys: list[str], kind: type[PreTrainedModel], config: PreTrainedConfig, own: Collection[str]
) -> set[str]:
    """Those that a whole model has outside its text part, or in it for other tokens than text's."""
    try:
        with torch.device("meta"):
            whole = kind._from_config(config)
    except Exception:
        return set()  # Nothing is known of other parts then, and their tensors are named as a mistake.
    text = tuple(f"{path}." for path in text_paths(whole, config))
    places = TensorPlaces(whole)

    def is_beside(name: str) -> bool:
        inside = name.startswith(text) and not any(f".{part}." in name for part in NOT_OF_TEXT)
        return name in places.parameters and name not in own and not inside

    return {key for key, place in places.of_all(keys).items() if text and is_beside(place.parameters[0])}


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
