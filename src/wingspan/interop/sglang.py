"""Placements to and from the file that SGLang loads with `--init-expert-location`.

A JSON object with `physical_to_logical_map`, one row per hidden layer, dense ones included (their rows are not used,
but must name every expert). Source: sgl-project/sglang, python/sglang/srt/eplb/expert_location.py,
`compute_initial_expert_location_metadata`; rows per hidden layer: `get_model_config_for_expert_location` of its models.

Shapes: L MoE layers, H hidden layers, P physical experts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.interop.physical import ImportOptions, check_moe_layers, from_physical, physical_to_logical
from wingspan.placement.placement import Placement


def write(placement: Placement, path: Path, moe_layers: tuple[int, ...], hidden_layers: int) -> None:
    """Write the placement.

    Args:
        placement: without empty slots.
        path: must end in `.json`, by which SGLang knows the format.
        moe_layers: number of each MoE layer among the hidden layers.
        hidden_layers: the model's `num_hidden_layers`.
    """
    if path.suffix != ".json":
        raise InputError(f"--out {path}: SGLang knows the format by its ending; use .json")
    check_moe_layers(placement, moe_layers)
    if moe_layers[-1] >= hidden_layers:
        raise InputError(f"--hidden-layers {hidden_layers} leaves out MoE layer {moe_layers[-1]}")
    physical_LP = physical_to_logical(placement)
    trivial_P = np.arange(physical_LP.shape[1]) % placement.num_experts
    map_HP = np.tile(trivial_P, (hidden_layers, 1))
    map_HP[list(moe_layers)] = physical_LP
    path.write_text(json.dumps({"physical_to_logical_map": map_HP.tolist()}))


def read(path: Path, options: ImportOptions) -> Placement:
    """Read a placement back; `options.moe_layers` says which rows are MoE layers (None: all)."""
    return from_map(read_json(path), str(path), options)


def from_map(data: Any, source: str, options: ImportOptions) -> Placement:
    """The placement of an object with `physical_to_logical_map`."""
    if not isinstance(data, dict) or "physical_to_logical_map" not in data:
        raise InputError(f"{source}: no physical_to_logical_map in it")
    rows = data["physical_to_logical_map"]
    if options.moe_layers is not None:
        if max(options.moe_layers) >= len(rows):
            raise InputError(
                f"{source}: --moe-layers names layer {max(options.moe_layers)}, it has {len(rows)} rows"
            )
        rows = [rows[n] for n in options.moe_layers]
    return from_physical(rows, source, options)


def command(placement: Placement, path: Path) -> str:
    """The command line that uses the file."""
    physical = placement.num_ranks * placement.slots_per_rank
    return (
        f"python -m sglang.launch_server --model-path MODEL --tp-size {placement.num_ranks} "
        f"--ep-size {placement.num_ranks} --dp-size {placement.num_ranks} --enable-dp-attention "
        f"--moe-a2a-backend deepep --ep-num-redundant-experts {physical - placement.num_experts} "
        f"--ep-dispatch-algorithm static --init-expert-location {path}"
    )
