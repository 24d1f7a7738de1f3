"""Which part of a rank's memory each weight belongs to, on an unmodified transformers model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from wingspan.runtime.model.experts_table import experts_parameters, need_row
from wingspan.runtime.model.instrument import decoder_layers, experts_blocks, operation_of, parts_of
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.schedule.result import Operation
from wingspan.specs.memory import WEIGHTS, MemoryPart

_OF_OPERATION = {Operation.ATTENTION: MemoryPart.ATTENTION, Operation.DENSE: MemoryPart.DENSE}


def weight_bytes(model: nn.Module, layers: Mapping[str, ExpertParallelLayer]) -> dict[MemoryPart, int]:
    """Bytes of each part of `WEIGHTS` on this rank.

    Args:
        model: loaded.
        layers: the expert-parallel layer at each experts module's path; its experts hold their own weights.
    """
    sizes = dict.fromkeys(WEIGHTS, 0)
    sizes[MemoryPart.EXPERTS] = sum(layer.experts.weight_bytes for layer in layers.values())
    for name, part in weight_parts(model, layers).items():
        if part is not MemoryPart.EXPERTS:
            sizes[part] += model.get_parameter(name).nbytes
    return sizes


def weight_parts(model: nn.Module, experts_paths: Collection[str]) -> dict[str, MemoryPart]:
    """The part of each parameter, by its name; tied ones once.

    Args:
        model: a causal language model.
        experts_paths: where its experts modules are.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
    at_ends = {id(parameter) for module in ends if module is not None for parameter in module.parameters()}
    inside = {
        f"{path}.{name}": operation_of(name, child)
        for path, layer in decoder_layers(model, experts_paths)
        for name, child in parts_of(layer)
    }
    of_experts = experts_parameters(model, experts_paths)
    blocks = {
        block: need_row(model.get_submodule(path)).dense
        for block, path in experts_blocks(model, experts_paths).items()
    }
    found = {}
    for name, parameter in model.named_parameters():
        if name in of_experts:
            found[name] = MemoryPart.EXPERTS
        elif id(parameter) in at_ends:
            found[name] = MemoryPart.EMBEDDING_AND_HEAD
        elif block := next((block for block in blocks if _within(name, block)), None):
            child = name.removeprefix(f"{block}.").partition(".")[0]
            if child in blocks[block]:
                found[name] = MemoryPart.DENSE
            else:
                shared = "shared" in child
                found[name] = MemoryPart.SHARED_EXPERTS if shared else MemoryPart.ROUTERS_AND_NORMS
        else:
            operation = next((operation for path, operation in inside.items() if _within(name, path)), None)
            found[name] = _part(operation)
    return found


def _part(operation: Operation | None) -> MemoryPart:
    if operation is None:
        return MemoryPart.ROUTERS_AND_NORMS
    return _OF_OPERATION[operation]


def _within(name: str, path: str) -> bool:
    return name.startswith(f"{path}.")
