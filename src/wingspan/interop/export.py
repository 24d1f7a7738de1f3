"""Export a placement to an engine's file and read it back, so that nothing wrong leaves the house."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.errors import InputError, RunError
from wingspan.interop import sglang, tensorrt_llm, vllm
from wingspan.interop.physical import ImportOptions
from wingspan.placement.placement import Placement

ENGINES = ("sglang", "vllm", "vllm-ascend", "tensorrt-llm")


@dataclass(frozen=True)
class ModelLayers:
    """Where the MoE layers lie in the model.

    Args:
        moe_layers: number of each MoE layer, counted over all hidden layers from 0.
        hidden_layers: hidden layers in all.
    """

    moe_layers: tuple[int, ...]
    hidden_layers: int


def export(placement: Placement, engine: str, path: Path, layers: ModelLayers) -> str:
    """Write the placement as `engine` loads it; returns the command line that uses the file.

    Raises:
        InputError: an unknown engine, an empty slot, layers that do not fit, or a path that cannot be written.
        RunError: what was written reads back as another placement.
    """
    try:
        if engine == "sglang":
            sglang.write(placement, path, layers.moe_layers, layers.hidden_layers)
        elif engine == "vllm":
            vllm.write(placement, path)
        elif engine == "vllm-ascend":
            vllm.write_ascend(placement, path)
        elif engine == "tensorrt-llm":
            tensorrt_llm.write(placement, path, layers.moe_layers)
        else:
            raise InputError(f"--to {engine}: use one of {', '.join(ENGINES)}")
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror})") from None
    if read_placement(engine, path, _options(placement, layers)) != placement:
        raise RunError(f"{path}: reads back as another placement than was written")
    return _command(engine, placement, path)


def read_placement(engine: str, path: Path, options: ImportOptions) -> Placement:
    """The placement in an engine's file."""
    if engine == "sglang":
        return sglang.read(path, options)
    if engine == "tensorrt-llm":
        return tensorrt_llm.read(path, options)[0]
    return vllm.read(path, options)


def _options(placement: Placement, layers: ModelLayers) -> ImportOptions:
    return ImportOptions(placement.num_ranks, placement.num_experts, layers.moe_layers)


def _command(engine: str, placement: Placement, path: Path) -> str:
    commands = {
        "sglang": sglang.command,
        "vllm": vllm.command,
        "vllm-ascend": vllm.command_ascend,
        "tensorrt-llm": tensorrt_llm.command,
    }
    return commands[engine](placement, path)
