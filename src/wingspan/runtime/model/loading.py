"""Load a transformers model rank by rank: the shared weights, then this rank's experts, one after another.

So a rank never holds more than its share of the weights and one expert on its way into its slot.
"""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import LoadStateDictConfig

from wingspan.errors import InputError
from wingspan.runtime.model.architecture import MoeShape, cause
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.experts_table import cut_rows, experts_parameters
from wingspan.runtime.model.inventory import EXPERT_NUMBER, take_inventory
from wingspan.runtime.model.places import Read, TensorPlace, TensorPlaces, conversions


class ModelReader:
    """Reads a model's weights from its checkpoint: what all ranks share, and single experts.

    Args:
        folder: the checkpoint.
        structure: from `build_on_meta`; it stays as it is.
        config: the checkpoint's.
        shape: from `moe_shape`.

    Raises:
        InputError: weights are missing, quantised in a form that is not read, damaged, without a place in the model,
            or of other shapes than the configuration says.
    """

    def __init__(
        self, folder: Path, structure: PreTrainedModel, config: PreTrainedConfig, shape: MoeShape
    ) -> None:
        self._checkpoint = DequantisedCheckpoint(folder)
        inventory = take_inventory(self._checkpoint, structure, config, shape)
        inventory.check()
        self._shape = shape
        self._structure = structure
        self._of_experts = experts_parameters(structure, shape.paths)
        # transformers' conversions look at the model for the shapes that they are to make.
        self._of_one = _with_experts(structure, shape, 1)
        self._places = TensorPlaces(self._of_one)
        self._shared: list[str] = []
        self._fused: dict[str, dict[str, TensorPlace]] = defaultdict(dict)
        self._single: dict[tuple[str, int], dict[str, TensorPlace]] = defaultdict(dict)
        for key, place in inventory.targets.items():
            parameter = self._of_experts.get(place.parameters[0])
            if parameter is None:
                self._shared.append(key)
            elif number := EXPERT_NUMBER.search(key):
                self._single[parameter.path, int(number[0])][key] = place
            else:
                self._check_fused(key, parameter.rows)
                self._fused[parameter.path][key] = place

    def shared_model(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model with the weights that are no expert's; of each layer's experts it has none.

        Args:
            dtype: of the parameters in memory.
        """
        model = _with_experts(self._structure, self._shape, 0)
        for name in self._of_experts:
            # There is nothing to load: these experts are complete from the start.
            model.get_parameter(name)._is_hf_initialized = True  # type: ignore[attr-defined]
        load_config = LoadStateDictConfig(
            pretrained_model_name_or_path=str(self._checkpoint.folder),
            dtype=dtype,
            dtype_plan=model._get_dtype_plan(dtype),
            weight_mapping=conversions(model),  # type: ignore[arg-type]
            ignore_mismatched_sizes=True,
        )
        state = {key: self._checkpoint[key] for key in self._shared}
        found, _ = type(model)._load_pretrained_model(model, state, None, load_config)
        self._check_complete(model, found)
        type(model)._finalize_model_loading(model, load_config, found)
        return model.eval()

    def expert(self, path: str, number: int) -> dict[str, torch.Tensor]:
        """One expert's part of each of its layer's parameters, by their names below the experts module.

        Args:
            path: of the experts module.
            number: the logical expert.

        Raises:
            InputError: its tensors do not make what the configuration says.
        """
        parts: dict[str, tuple[TensorPlace, Read]] = {}
        for key, place in self._single[path, number].items():
            parts[key] = place, self._reader(key, ...)
        for key, place in self._fused[path].items():
            rows = self._of_experts[place.parameters[0]].rows
            parts[key] = place, self._reader(key, slice(number * rows, (number + 1) * rows))
        try:
            made = self._places.make(parts)
        except (RuntimeError, ValueError) as error:
            if "memory" in str(error):
                raise
            raise InputError(
                f"{self._checkpoint.folder}: expert {number} of {path} cannot be made of its tensors: {cause(error)}"
            ) from None
        for name, tensor in made.items():
            self._check_shape(name, tensor.shape, self._of_one.get_parameter(name).shape)
        return {name.removeprefix(f"{path}."): tensor for name, tensor in made.items()}

    def _reader(self, key: str, index: Any) -> Read:
        return lambda: self._checkpoint[key][index]

    def _check_fused(self, key: str, rows: int) -> None:
        on_disk, needed = self._checkpoint.shape_of(key), self._shape.num_experts * rows
        if on_disk[:1] != (needed,):
            raise InputError(
                f"{self._checkpoint.folder}: {key} has shape {list(on_disk)}; a fused tensor of "
                f"{self._shape.num_experts} experts has {needed} along its first dimension"
            )

    def _check_shape(self, name: str, made: Any, expected: Any) -> None:
        if tuple(made) != tuple(expected):
            raise InputError(
                f"{self._checkpoint.folder}: the tensors of {name} make {list(made)}, config.json says "
                f"{list(expected)}; they belong to different models"
            )

    def _check_complete(self, model: PreTrainedModel, found: Any) -> None:
        """Name what transformers' conversions could not make: shapes that only show when tensors are put together."""
        folder = self._checkpoint.folder
        if found.conversion_errors:
            name, reason = next(iter(found.conversion_errors.items()))
            lines = [
                line for line in str(reason).splitlines() if line.strip() and not line.startswith("Error:")
            ]
            raise InputError(f"{folder}: {name} cannot be made of its tensors: {lines[-1].strip()}")
        for name, made, expected in sorted(found.mismatched_keys, key=str):
            self._check_shape(name, made, expected)
        tied = dict(model.all_tied_weights_keys or {})
        empty = {name for name, tensor in model.state_dict().items() if not tensor.numel()}
        missing = sorted(found.missing_keys - set(tied) - set(tied.values()) - empty)
        if missing:
            raise InputError(f"{folder}: {len(missing)} weights are missing, the first is {missing[0]}")
        found.missing_keys -= empty


def _with_experts(structure: PreTrainedModel, shape: MoeShape, experts: int) -> PreTrainedModel:
    """A copy of a model on the meta device with so many experts in each layer."""
    model = deepcopy(structure)
    for name, parameter in experts_parameters(structure, shape.paths).items():
        cut_rows(model, name, experts * parameter.rows)
    return model
