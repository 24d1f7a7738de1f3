"""Load a transformers model rank by rank: the shared weights, and of the experts only this rank's slots.

transformers' own key mapping says which parameter each tensor on disk belongs to, so every layout it knows
(one file entry per expert, fused, transposed, renamed) loads here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.modeling_utils import LoadStateDictConfig

import wingspan.models  # noqa: F401 - registers the seed's architecture with transformers
from wingspan.errors import InputError
from wingspan.placement.placement import Placement
from wingspan.runtime.model.checkpoint import Checkpoint, ExpertRows
from wingspan.runtime.model.layer import experts_modules

_EXPERT_NUMBER = re.compile(r"(?<=experts\.)(\d+)(?=\.)")


@dataclass(frozen=True)
class MoeShape:
    """What expert parallelism needs to know of a model: its MoE layers by path, and experts per layer."""

    paths: list[str]
    num_experts: int
    top_k: int


def load_config(folder: Path) -> PreTrainedConfig:
    """The model's configuration, from a folder with `config.json` or from such a file itself.

    Raises:
        InputError: there is none, or it names no architecture that transformers knows.
    """
    file = folder if folder.is_file() else folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no model here (expected a folder with config.json, or the file itself)")
    try:
        return AutoConfig.from_pretrained(file.parent if file.name == "config.json" else file)
    except (ValueError, KeyError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"{file}: not a configuration that transformers can read: {first_line}") from None


def build_on_meta(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model's structure with no memory behind its parameters."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def moe_shape(model: nn.Module, config: PreTrainedConfig) -> MoeShape:
    """Where the model's experts are.

    Raises:
        InputError: there are none, layers differ in their number of experts, or top-k exceeds it.
    """
    modules = dict(experts_modules(model))
    if not modules:
        raise InputError(
            f"model type {config.model_type!r} has no experts that transformers' registry serves; "
            "expert parallelism needs a Mixture-of-Experts architecture"
        )
    counts = {count_of(m) for m in modules.values()}
    if len(counts) > 1:
        raise InputError(f"layers with different numbers of experts ({sorted(counts)}) are not supported")
    num_experts = counts.pop()
    top_k = _top_k(config)
    if top_k > num_experts:
        raise InputError(
            f"config: {top_k} experts per token of only {num_experts}; lower num_experts_per_tok"
        )
    return MoeShape(list(modules), num_experts, top_k)


def count_of(experts: nn.Module) -> int:
    """Logical experts of an experts module."""
    return int(experts.num_experts)  # type: ignore[arg-type]


def load_for_rank(
    folder: Path, model: PreTrainedModel, shape: MoeShape, placement: Placement, rank: int, dtype: torch.dtype
) -> PreTrainedModel:
    """Fill a model from `build_on_meta` with this rank's share of the checkpoint.

    Args:
        folder: the checkpoint.
        model: on the meta device; its experts modules are cut to this rank's slots.
        shape: from `moe_shape`.
        placement: one entry per MoE layer of `shape`.
        rank: whose slots.
        dtype: of the parameters in memory.

    Raises:
        InputError: weights are missing, damaged, or of other shapes than the configuration says.
    """
    held = {path: placement.experts_on(layer, rank) for layer, path in enumerate(shape.paths)}
    transforms = get_model_conversion_mapping(model)
    state = _own_tensors(Checkpoint(folder), model, transforms, held, shape.num_experts)
    for path, experts in held.items():
        _cut_to_slots(model.get_submodule(path), len(experts), shape.num_experts)
    load_config = LoadStateDictConfig(
        pretrained_model_name_or_path=str(folder),
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        weight_mapping=transforms,  # type: ignore[arg-type]
        ignore_mismatched_sizes=True,
    )
    found, _ = type(model)._load_pretrained_model(model, state, None, load_config)
    _check_complete(folder, model, found)
    type(model)._finalize_model_loading(model, load_config, found)
    return model.eval()


def _own_tensors(
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    transforms: list[Any],
    held: dict[str, list[int]],
    num_experts: int,
) -> dict[str, Any]:
    """The checkpoint's entries without other ranks' experts, ours renumbered from 0; nothing is read yet."""
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    parameters = model.state_dict()
    own: dict[str, Any] = {}
    for key in checkpoint:
        target, _ = rename_source_key(key, renamings, converters, model.base_model_prefix, parameters)
        path, _, name = target.rpartition(".")
        if path not in held or not _is_per_expert(model.get_submodule(path), name, num_experts):
            own[key] = checkpoint[key]
        elif number := _EXPERT_NUMBER.search(key):
            if int(number[0]) in held[path]:
                local = held[path].index(int(number[0]))
                own[_EXPERT_NUMBER.sub(str(local), key, count=1)] = checkpoint[key]
        elif checkpoint[key].get_shape()[0] != num_experts:
            raise InputError(
                f"{checkpoint.folder}: {key} has shape {checkpoint[key].get_shape()}; a fused tensor of "
                f"{num_experts} experts has {num_experts} along its first dimension"
            )
        elif held[path]:
            own[key] = ExpertRows(checkpoint[key], held[path])
    return own


def _is_per_expert(module: nn.Module, name: str, num_experts: int) -> bool:
    parameter = module._parameters.get(name)
    return parameter is not None and parameter.shape[0] == num_experts


def _cut_to_slots(module: nn.Module, slots: int, num_experts: int) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is None or not _is_per_expert(module, name, num_experts):
            continue
        # A rank with no slot in this layer has nothing to load: real, empty and complete from the start.
        device = "meta" if slots else "cpu"
        cut = nn.Parameter(torch.empty((slots, *parameter.shape[1:]), dtype=parameter.dtype, device=device))
        if not slots:
            cut._is_hf_initialized = True  # type: ignore[attr-defined]
        module._parameters[name] = cut


def _check_complete(folder: Path, model: PreTrainedModel, found: Any) -> None:
    if found.conversion_errors:
        name, reason = next(iter(found.conversion_errors.items()))
        raise InputError(f"{folder}: {name} cannot be converted: {str(reason).strip().splitlines()[-1]}")
    if found.mismatched_keys:
        name, on_disk, expected = sorted(found.mismatched_keys, key=str)[0]
        raise InputError(
            f"{folder}: {name} has shape {tuple(on_disk)} on disk, {tuple(expected)} by config.json; "
            "they belong to different models"
        )
    tied = set(model.all_tied_weights_keys or {})
    empty = {name for name, tensor in model.state_dict().items() if not tensor.numel()}
    missing = sorted(found.missing_keys - tied - empty)
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}; the checkpoint is incomplete"
        )
    found.missing_keys -= empty


def _top_k(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    for name in ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"):
        if isinstance(value := getattr(text, name, None), int):
            return value
    raise InputError(f"config of {config.model_type!r}: no number of experts per token (num_experts_per_tok)")
