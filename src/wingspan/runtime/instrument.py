"""Time for what happens outside the experts, by forward hooks on an unmodified transformers model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from wingspan.runtime.layer import ExpertParallelLayer
from wingspan.runtime.recorder import Recorder
from wingspan.schedule.result import Operation


def instrument(model: nn.Module, layers: dict[str, ExpertParallelLayer], recorder: Recorder) -> None:
    """Record attention, dense MLPs, gates, shared experts, embedding and head of every step.

    Args:
        model: a causal language model.
        layers: the expert-parallel layer at each experts module's path.
        recorder: takes the times.
    """
    blocks = _blocks_with_experts(layers)
    for number, (path, decoder_layer) in enumerate(_decoder_layers(model, layers)):
        for name, child in decoder_layer.named_children():
            block = blocks.get(f"{path}.{name}")
            if block is not None:
                _time_gate(child, block)
                _time_shared_experts(child, block, recorder)
            elif operation := _operation_of(name, child):
                _time(child, operation, number, recorder)
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module, operation in ((embedding, Operation.EMBED), (head, Operation.HEAD)):
        if module is not None:
            _time(module, operation, None, recorder)


def _blocks_with_experts(layers: dict[str, ExpertParallelLayer]) -> dict[str, ExpertParallelLayer]:
    """The module just above each experts module: gate, experts, shared experts."""
    return {path.rpartition(".")[0]: layer for path, layer in layers.items()}


def _decoder_layers(
    model: nn.Module, layers: dict[str, ExpertParallelLayer]
) -> Iterator[tuple[str, nn.Module]]:
    """All members of the module lists that hold the experts, dense layers too."""
    first = next(iter(layers))
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and first.startswith(f"{path}."):
            for name, member in module.named_children():
                yield f"{path}.{name}", member
            return


def _operation_of(name: str, module: nn.Module) -> Operation | None:
    if "norm" in name or "norm" in type(module).__name__.lower():
        return None
    if "attn" in name or "attention" in name or "mixer" in name:
        return Operation.ATTENTION
    if "mlp" in name or "feed_forward" in name or "ffn" in name:
        return Operation.DENSE
    return None


def _time(module: nn.Module, operation: Operation, layer: int | None, recorder: Recorder) -> None:
    start = [0.0]

    def before(*_: Any) -> None:
        start[0] = recorder.now()

    def after(*_: Any) -> None:
        recorder.compute(operation, layer, start[0])

    _hook(module, before, after)


def _time_gate(block: nn.Module, layer: ExpertParallelLayer) -> None:
    """The gate's time runs from the block's start to its experts'; the layer itself records its end."""

    def before(*_: Any) -> None:
        layer.gate_start_seconds = Recorder.now()

    block.register_forward_pre_hook(before)


def _time_shared_experts(block: nn.Module, layer: ExpertParallelLayer, recorder: Recorder) -> None:
    for name, child in block.named_children():
        if "shared" not in name or "gate" in name:
            continue
        start = [0.0]

        def before(*_: Any, start: list[float] = start) -> None:
            start[0] = recorder.now()

        def after(*_: Any, start: list[float] = start) -> None:
            end = recorder.compute(Operation.SHARED_EXPERT, layer.index, start[0])
            # Where the shared expert runs before the routed ones its time is not the gate's.
            if layer.gate_start_seconds is not None:
                layer.gate_start_seconds += end - start[0]

        _hook(child, before, after)


def _hook(module: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> None:
    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
