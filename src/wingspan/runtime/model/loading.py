"""Load a transformers model rank by rank: the shared weights, and of the experts only this rank's slots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig

from wingspan.errors import InputError
from wingspan.runtime.model.architecture import MoeShape
from wingspan.runtime.model.checkpoint import ExpertRows
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.inventory import EXPERT_NUMBER, take_inventory
from wingspan.specs.placement import Placement


def load_for_rank(
    folder: Path,
    model: PreTrainedModel,
    config: PreTrainedConfig,
    shape: MoeShape,
    placement: Placement,
    rank: int,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """Fill a model from `build_on_meta` with this rank's share of the checkpoint.

    Args:
        folder: the checkpoint.
        model: on the meta device; its experts modules are cut to this rank's slots.
        config: the checkpoint's.
        shape: from `moe_shape`.
        placement: one entry per MoE layer of `shape`.
        rank: whose slots.
        dtype: of the parameters in memory.

    Raises:
        InputError: weights are missing, quantised, damaged, without a place in the model, or of other shapes than the
            configuration says.
    """
    checkpoint = DequantisedCheckpoint(folder)
    inventory = take_inventory(checkpoint, model, config, shape)
    inventory.check()
    held = {path: placement.experts_on(layer, rank) for layer, path in enumerate(shape.paths)}
    state = _own_tensors(checkpoint, inventory.targets, model, held, shape.num_experts)
    for path, experts in held.items():
        _cut_to_slots(model.get_submodule(path), len(experts), shape.num_experts)
    load_config = LoadStateDictConfig(
        pretrained_model_name_or_path=str(folder),
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        weight_mapping=get_model_conversion_mapping(model),  # type: ignore[arg-type]
        ignore_mismatched_sizes=True,
    )
    found, _ = type(model)._load_pretrained_model(model, state, None, load_config)
    _check_complete(folder, model, found)
    type(model)._finalize_model_loading(model, load_config, found)
    return model.eval()


def _own_tensors(
    checkpoint: DequantisedCheckpoint,
    targets: Mapping[str, str],
    model: PreTrainedModel,
    held: dict[str, list[int]],
    num_experts: int,
) -> dict[str, Any]:
    """The checkpoint's entries without other ranks' experts, ours renumbered from 0; nothing is read yet."""
    own: dict[str, Any] = {}
    for key, target in targets.items():
        path, _, name = target.rpartition(".")
        if path not in held or not _is_per_expert(model.get_submodule(path), name, num_experts):
            own[key] = checkpoint[key]
        elif number := EXPERT_NUMBER.search(key):
            if int(number[0]) in held[path]:
                local = held[path].index(int(number[0]))
                own[EXPERT_NUMBER.sub(str(local), key, count=1)] = checkpoint[key]
        elif checkpoint.shape_of(key)[:1] != (num_experts,):
            raise InputError(
                f"{checkpoint.folder}: {key} has shape {list(checkpoint.shape_of(key))}; a fused tensor of "
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
    """Name what transformers' conversions could not make: shapes that only show when tensors are put together."""
    if found.conversion_errors:
        name, reason = next(iter(found.conversion_errors.items()))
        lines = [line for line in str(reason).splitlines() if line.strip() and not line.startswith("Error:")]
        raise InputError(f"{folder}: {name} cannot be made of its tensors: {lines[-1].strip()}")
    if found.mismatched_keys:
        name, made, expected = sorted(found.mismatched_keys, key=str)[0]
        raise InputError(
            f"{folder}: the tensors of {name} make {list(made)}, config.json says {list(expected)}; "
            "they belong to different models"
        )
    tied = dict(model.all_tied_weights_keys or {})
    empty = {name for name, tensor in model.state_dict().items() if not tensor.numel()}
    missing = sorted(found.missing_keys - set(tied) - set(tied.values()) - empty)
    if missing:
        raise InputError(f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}")
    found.missing_keys -= empty
