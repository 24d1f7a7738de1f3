"""Load a transformers model rank by rank: the shared weights, and of the experts only this rank's slots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import LoadStateDictConfig

from wingspan.errors import InputError
from wingspan.runtime.model.architecture import MoeShape
from wingspan.runtime.model.checkpoint import ExpertRows
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.experts_table import ExpertsParameter, cut_rows, experts_parameters
from wingspan.runtime.model.inventory import EXPERT_NUMBER, take_inventory
from wingspan.runtime.model.places import conversions
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
    of_experts = experts_parameters(model, shape.paths)
    state = _own_tensors(checkpoint, inventory.targets, of_experts, held, shape.num_experts)
    for name, parameter in of_experts.items():
        slots = len(held[parameter.path])
        cut_rows(model, name, slots * parameter.rows)
        if not slots:
            # A rank with no slot in this layer has nothing to load: its experts are complete from the start.
            model.get_parameter(name)._is_hf_initialized = True  # type: ignore[attr-defined]
    load_config = LoadStateDictConfig(
        pretrained_model_name_or_path=str(folder),
        dtype=dtype,
        dtype_plan=model._get_dtype_plan(dtype),
        weight_mapping=conversions(model),  # type: ignore[arg-type]
        ignore_mismatched_sizes=True,
    )
    found, _ = type(model)._load_pretrained_model(model, state, None, load_config)
    _check_complete(folder, model, found)
    type(model)._finalize_model_loading(model, load_config, found)
    return model.eval()


def _own_tensors(
    checkpoint: DequantisedCheckpoint,
    targets: Mapping[str, str],
    of_experts: Mapping[str, ExpertsParameter],
    held: dict[str, list[int]],
    num_experts: int,
) -> dict[str, Any]:
    """The checkpoint's entries without other ranks' experts, ours renumbered from 0; nothing is read yet."""
    own: dict[str, Any] = {}
    for key, target in targets.items():
        parameter = of_experts.get(target)
        if parameter is None:
            own[key] = checkpoint[key]
            continue
        experts = held[parameter.path]
        if number := EXPERT_NUMBER.search(key):
            if int(number[0]) in experts:
                local = experts.index(int(number[0]))
                own[EXPERT_NUMBER.sub(str(local), key, count=1)] = checkpoint[key]
        elif checkpoint.shape_of(key)[:1] != (num_experts * parameter.rows,):
            raise InputError(
                f"{checkpoint.folder}: {key} has shape {list(checkpoint.shape_of(key))}; a fused tensor of "
                f"{num_experts} experts has {num_experts * parameter.rows} along its first dimension"
            )
        elif experts:
            own[key] = ExpertRows(checkpoint[key], experts, parameter.rows)
    return own


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
