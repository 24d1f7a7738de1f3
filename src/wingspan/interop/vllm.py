"""Placements to and from the files that vLLM, its open changes and vLLM Ascend load.

Released vLLM computes its map itself (vllm/config/parallel.py, `EPLBConfig`: no path). Several file forms exist;
all number the MoE layers from 0, dense layers left out:

- `.json`, one list of logical experts per MoE layer (or one list for all): `eplb_config.initial_expert_map_path` of
  vllm-project/vllm pull request 49572.
- `.jsonl`, a record `eplb_initial_mapping`: `eplb_config.initial_mapping_path` of vllm-project/vllm pull request 41141.
- `.json` of vLLM builds with offline maps: `format` `vllm_offline_eplb_physical_to_logical` (version 1: a
  `physical_to_logical_map`), or `..._by_model` (version 2: `model_maps`, such an object per model class). Read only.
- vLLM Ascend's `expert_map_path` (released): `layer_list` of `device_list` of `device_expert`. Source:
  vllm-project/vllm-ascend, vllm_ascend/eplb/core/eplb_utils.py. Layouts of
  verl are the same without `device_count`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.files import read_json, read_json_lines
from wingspan.interop.physical import ImportOptions, NotSaidError, from_physical, physical_to_logical
from wingspan.specs.placement import Placement
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import json_text, write_json

_MAPPING = "eplb_initial_mapping"


def write(placement: Placement, path: Path) -> None:
    """Write the form that the ending names: `.json` lists, or a `.jsonl` record."""
    rows = physical_to_logical(placement).tolist()
    if path.suffix == ".json":
        write_json(path, rows)
    elif path.suffix == ".jsonl":
        record = {
            "record_type": _MAPPING,
            "version": 1,
            "num_redundant_experts": len(rows[0]) - placement.num_experts,
            "num_slots": len(rows[0]),
            "initial_global_assignments": {str(n): row for n, row in enumerate(rows)},
        }
        write_json(path, record)
    else:
        raise InputError(f"{path}: use .json (lists per layer) or .jsonl (mapping record)")


def write_ascend(placement: Placement, path: Path) -> None:
    """Write vLLM Ascend's expert map."""
    physical_to_logical(placement)  # no empty slot there either
    layers = [
        {
            "layer_id": layer,
            "device_count": placement.num_ranks,
            "device_list": [
                {"device_id": rank, "device_expert": experts} for rank, experts in enumerate(ranks)
            ],
        }
        for layer, ranks in enumerate(placement.slots_LRS.tolist())
    ]
    write_json(path, {"moe_layer_count": placement.num_layers, "layer_list": layers}, indent=1)


def read(path: Path, options: ImportOptions) -> StoredPlacement:
    """Read any of the forms back; where their layers lie in the model is known as far as `options` say it."""
    if path.suffix == ".jsonl":
        return _from_record(read_json_lines(path), str(path), options)
    data = read_json(path)
    if isinstance(data, dict) and "model_maps" in data:
        data = _map_of_model(data["model_maps"], str(path), options)
    if isinstance(data, dict) and "physical_to_logical_map" in data:
        experts = _experts(options, data.get("num_logical_experts"), str(path))
        return from_physical(data["physical_to_logical_map"], str(path), options, experts=experts)
    if isinstance(data, dict) and "layer_list" not in data:
        raise InputError(
            f"{path}: neither physical_to_logical_map, model_maps nor vLLM Ascend's layer_list in it"
        )
    if isinstance(data, dict):
        return _from_ascend(data, str(path), options)
    if isinstance(data, list) and data and not isinstance(data[0], list):
        raise InputError(
            f"{path}: one list for all layers; repeat it per MoE layer, as [[...], [...]], to say how many there are"
        )
    return from_physical(data, str(path), options)


def _map_of_model(maps: Any, source: str, options: ImportOptions) -> dict[str, Any]:
    """The map of the model that is asked for, or the only one."""
    if not isinstance(maps, dict) or not all(isinstance(each, dict) for each in maps.values()) or not maps:
        raise InputError(f"{source}: model_maps is no object of maps by model class")
    names = ", ".join(maps)
    if options.model_class is None and len(maps) > 1:
        raise NotSaidError(f"{source}: holds maps of {names}", "model_class")
    name = options.model_class or next(iter(maps))
    if name not in maps:
        raise InputError(f"{source}: no map of {name}; it has {names}")
    found: dict[str, Any] = maps[name]
    return found


def _experts(options: ImportOptions, said: Any, source: str) -> int | None:
    """The number of experts that the file says; refuses to be asked for another one."""
    if said is None:
        return None
    if options.experts not in (None, said):
        raise InputError(f"{source}: num_logical_experts is {said}, not {options.experts}")
    return int(said)


def _from_record(records: list[dict[str, Any]], source: str, options: ImportOptions) -> StoredPlacement:
    for record in records:
        if record.get("record_type") == _MAPPING:
            layers = record.get("initial_global_assignments")
            if record.get("version") != 1 or not isinstance(layers, dict) or not layers:
                raise InputError(
                    f"{source}: an {_MAPPING} record of version {record.get('version')}, expected 1"
                )
            try:
                rows = [layers[str(n)] for n in range(len(layers))]
            except KeyError as error:
                raise InputError(f"{source}: no layer {error} among {len(layers)}") from None
            return from_physical(rows, source, options)
    raise InputError(f"{source}: no {_MAPPING} record in it")


def _from_ascend(data: dict[str, Any], source: str, options: ImportOptions) -> StoredPlacement:
    try:
        devices = [
            [device["device_expert"] for device in sorted(layer["device_list"], key=lambda d: d["device_id"])]
            for layer in sorted(data["layer_list"], key=lambda la: la["layer_id"])
        ]
        ranks = {len(layer) for layer in devices}
        slots = {len(experts) for layer in devices for experts in layer}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{source}: not vLLM Ascend's expert map (layer_list, device_list: {error})"
        ) from None
    if len(ranks) != 1 or len(slots) != 1 or data.get("moe_layer_count") != len(devices):
        raise InputError(f"{source}: layers, devices and experts per device must be the same throughout")
    found = ranks.pop()
    if options.ranks not in (None, found):
        raise InputError(f"{source}: {found} devices, not {options.ranks} ranks")
    rows = [[expert for experts in layer for expert in experts] for layer in devices]
    return from_physical(rows, source, options, ranks=found)


def command(placement: Placement, path: Path, ranks_per_node: int) -> str:
    """The command line that uses the file, and the change to vLLM that it needs."""
    redundant = placement.num_ranks * placement.slots_per_rank - placement.num_experts
    option = "initial_mapping_path" if path.suffix == ".jsonl" else "initial_expert_map_path"
    change = 41141 if path.suffix == ".jsonl" else 49572
    config = json_text({"num_redundant_experts": redundant, option: str(path)})
    return (
        f"vllm serve MODEL {_ranks(placement, ranks_per_node)} --enable-expert-parallel --enable-eplb "
        f"--eplb-config '{config}'  # needs vLLM with pull request {change}: released vLLM loads no map"
    )


def command_ascend(placement: Placement, path: Path, ranks_per_node: int) -> str:
    """The command line that uses vLLM Ascend's expert map."""
    redundant = placement.num_ranks * placement.slots_per_rank - placement.num_experts
    config = json_text({"eplb_config": {"expert_map_path": str(path), "num_redundant_experts": redundant}})
    return (
        f"vllm serve MODEL {_ranks(placement, ranks_per_node)} --enable-expert-parallel "
        f"--additional-config '{config}'"
    )


def _ranks(placement: Placement, ranks_per_node: int) -> str:
    """Data-parallel ranks; on several nodes, how many each has, and where the first is."""
    ranks = f"--data-parallel-size {placement.num_ranks}"
    if placement.num_ranks <= ranks_per_node:
        return ranks
    return (
        f"{ranks} --data-parallel-size-local {ranks_per_node} --data-parallel-start-rank FIRST "
        "--data-parallel-address HOST"
    )
