"""Placements to and from the file that SGLang loads with `--init-expert-location`.

A JSON object with `physical_to_logical_map`, one row per hidden layer, dense ones included (their rows are not used,
but must name every expert). Source: sgl-project/sglang, python/sglang/srt/eplb/expert_location.py,
`compute_initial_expert_location_metadata`; rows per hidden layer: `get_model_config_for_expert_location` of its models.

Shapes: L MoE layers, H hidden layers, P physical experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.interop.physical import ImportOptions, NotSaidError, from_physical, physical_to_logical
from wingspan.specs.placement import Placement
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import write_json


def write(placement: Placement, path: Path, moe_layers: tuple[int, ...], hidden_layers: int) -> None:
    """Write the placement.

    Args:
        placement: without empty slots.
        path: must end in `.json`, by which SGLang knows the format.
        moe_layers: number of each MoE layer among the hidden layers.
        hidden_layers: the model's `num_hidden_layers`.
    """
    if path.suffix != ".json":
        raise InputError(f"{path}: SGLang knows the format by its ending; use .json")
    physical_LP = physical_to_logical(placement)
    trivial_P = np.arange(physical_LP.shape[1]) % placement.num_experts
    map_HP = np.tile(trivial_P, (hidden_layers, 1))
    map_HP[list(moe_layers)] = physical_LP
    write_json(path, {"physical_to_logical_map": map_HP.tolist()})


def read(path: Path, options: ImportOptions) -> StoredPlacement:
    """Read a placement back; `options.moe_layers` says which rows are MoE layers."""
    return from_map(read_json(path), str(path), options)


def from_map(data: Any, source: str, options: ImportOptions) -> StoredPlacement:
    """The placement of an object with `physical_to_logical_map`.

    Raises:
        NotSaidError: nobody says which rows are MoE layers; rows of dense layers look like any other.
    """
    if not isinstance(data, dict) or "physical_to_logical_map" not in data:
        raise InputError(f"{source}: no physical_to_logical_map in it")
    rows = data["physical_to_logical_map"]
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{source}: physical_to_logical_map holds no rows")
    if options.hidden_layers not in (None, len(rows)):
        raise InputError(f"{source}: {len(rows)} rows, one a hidden layer, not {options.hidden_layers}")
    if options.ranks is not None and len(rows[0]) % options.ranks:
        from_physical(
            rows, source, options
        )  # says how many there are; which rows are MoE layers matters later
    if len(rows) == 1 and options.moe_layers is None:
        return from_physical(rows, source, options)
    if options.moe_layers is None:
        raise NotSaidError(
            f"{source}: {len(rows)} rows, one a hidden layer, and it does not say which are MoE layers",
            "moe_layers",
        )
    if max(options.moe_layers) >= len(rows):
        raise InputError(
            f"{source}: MoE layer {max(options.moe_layers)} is asked for, it has {len(rows)} rows"
        )
    if max(map(len, rows)) != min(map(len, rows)):
        raise InputError(f"{source}: its layers have different numbers of physical experts")
    return from_physical(
        [rows[n] for n in options.moe_layers], source, options, options.moe_layers, len(rows)
    )


def command(placement: Placement, path: Path, ranks_per_node: int) -> str:
    """The command line that uses the file; on several nodes it is given on each."""
    physical = placement.num_ranks * placement.slots_per_rank
    nodes = -(-placement.num_ranks // ranks_per_node)
    spread = f"--nnodes {nodes} --node-rank NODE --dist-init-addr HOST:PORT " if nodes > 1 else ""
    return (
        f"python -m sglang.launch_server --model-path MODEL {spread}--tp-size {placement.num_ranks} "
        f"--ep-size {placement.num_ranks} --dp-size {placement.num_ranks} --enable-dp-attention "
        f"--moe-a2a-backend deepep --ep-num-redundant-experts {physical - placement.num_experts} "
        f"--ep-dispatch-algorithm static --init-expert-location {path}"
    )
