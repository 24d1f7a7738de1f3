"""Placements to and from the YAML that TensorRT-LLM loads as `moe_config.load_balancer`.

`num_slots`, `initial_global_assignments` (number of the layer in the model -> logical expert of each slot, rank by
rank) and `layer_updates_per_iter` (0: the placement stays). Source: NVIDIA/TensorRT-LLM,
examples/wide_ep/ep_load_balancer/README.md and `MoeLoadBalancerConfig` in tensorrt_llm/llmapi/llm_args.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wingspan.errors import InputError
from wingspan.interop.files import read_text
from wingspan.interop.physical import ImportOptions, from_physical, physical_to_logical
from wingspan.reading import yaml_value
from wingspan.specs.placement import Placement
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import write_text


def write(placement: Placement, path: Path, moe_layers: tuple[int, ...]) -> None:
    """Write the placement; `moe_layers` numbers its layers in the model."""
    physical_LP = physical_to_logical(placement)
    config = {
        "num_slots": physical_LP.shape[1],
        "initial_global_assignments": dict(zip(moe_layers, physical_LP.tolist(), strict=True)),
        "layer_updates_per_iter": 0,
    }
    write_text(path, yaml.safe_dump(config, default_flow_style=None, width=1_000_000, sort_keys=False))


def read(path: Path, options: ImportOptions) -> StoredPlacement:
    """Read a placement back, with the numbers of its layers in the model."""
    try:
        data: Any = yaml_value(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    layers = data.get("initial_global_assignments") if isinstance(data, dict) else None
    if not isinstance(layers, dict) or not layers:
        raise InputError(f"{path}: no initial_global_assignments in it")
    try:
        numbers = tuple(sorted(int(n) for n in layers))
        rows = [layers[n] for n in numbers]
        wrong = [n for n in numbers if len(layers[n]) != data.get("num_slots")]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: initial_global_assignments is no map of layers to lists ({error})"
        ) from None
    if wrong:
        raise InputError(
            f"{path}: layer {wrong[0]} has {len(layers[wrong[0]])} slots, num_slots is {data.get('num_slots')}"
        )
    if options.moe_layers is not None:
        missing = sorted(set(options.moe_layers) - set(numbers))
        if missing:
            raise InputError(f"{path}: MoE layer {missing[0]} is asked for, which it has not")
        numbers, rows = options.moe_layers, [layers[n] for n in options.moe_layers]
    return from_physical(rows, str(path), options, numbers)


def command(placement: Placement, path: Path, ranks_per_node: int) -> str:
    """The command line that uses the file; it names an options file that holds `moe_config.load_balancer`."""
    options = f"enable_attention_dp: true\\nmoe_config:\\n  backend: WIDEEP\\n  load_balancer: {path}\\n"
    return (
        f"printf '{options}' > options.yaml && trtllm-serve MODEL --tp_size {placement.num_ranks} "
        f"--ep_size {placement.num_ranks} --gpus_per_node {ranks_per_node} --extra_llm_api_options options.yaml"
    )
