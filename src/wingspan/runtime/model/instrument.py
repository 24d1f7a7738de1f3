"""Time for what happens outside the experts, by forward hooks on an unmodified transformers model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from torch import nn

from wingspan.runtime.measuring.recorder import Recorder, SpanKey
from wingspan.runtime.model.experts_table import block_path
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.shared_expert import SharedExpert, takes_hidden_states_alone
from wingspan.runtime.model.step import Step
from wingspan.runtime.ranks.clock import Moment
from wingspan.schedule.result import Operation


def instrument(
    model: nn.Module, layers: dict[str, ExpertParallelLayer], recorder: Recorder, step: Step
) -> None:
    """Record attention, dense MLPs, gates, shared experts, embedding and head of every step.

    Args:
        model: a causal language model.
        layers: the expert-parallel layer at each experts module's path.
        recorder: takes the times.
        step: says which micro-batch is computed.
    """
    blocks = experts_blocks(model, layers)
    for number, (path, decoder_layer) in enumerate(decoder_layers(model, layers)):
        for name, child in parts_of(decoder_layer):
            experts_path = blocks.get(f"{path}.{name}")
            if experts_path is not None:
                _time_shared_experts(child, layers[experts_path], recorder)
                _time_gate(child, layers[experts_path], recorder)
            elif operation := operation_of(name, child):
                # Some layers have two attention blocks, in a list that is never called itself.
                for part in child if isinstance(child, nn.ModuleList) else (child,):
                    _time(part, operation, number, recorder, step)
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module, operation in ((embedding, Operation.EMBED), (head, Operation.HEAD)):
        if module is not None:
            _time(module, operation, None, recorder, step)


def experts_blocks(model: nn.Module, experts_paths: Collection[str]) -> dict[str, str]:
    """The children of decoder layers with router, experts and shared experts, each with the path of its experts."""
    blocks = {block_path(path, model.get_submodule(path)): path for path in experts_paths}
    children = [
        f"{path}.{name}"
        for path, layer in decoder_layers(model, experts_paths)
        for name, _ in parts_of(layer)
    ]
    return {
        child: path
        for block, path in blocks.items()
        for child in children
        if f"{block}.".startswith(f"{child}.")
    }


def decoder_layers(model: nn.Module, experts_paths: Iterable[str]) -> Iterator[tuple[str, nn.Module]]:
    """All members of the module list that holds the experts, dense layers too, each with its path."""
    first = next(iter(experts_paths))
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and first.startswith(f"{path}."):
            for name, member in module.named_children():
                yield f"{path}.{name}", member
            return


def parts_of(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a decoder layer; of one that is norms around attention (DBRX) its own."""
    for name, child in layer.named_children():
        inner = [*child.named_children()] if "norm" in name else []
        if inner:
            yield from ((f"{name}.{own}", part) for own, part in inner)
        else:
            yield name, child


def operation_of(name: str, module: nn.Module) -> Operation | None:
    """What a child of a decoder layer does, by its name: attention or a dense MLP; None where it is neither."""
    name = name.rpartition(".")[2]
    if "norm" in name or "norm" in type(module).__name__.lower():
        return None
    if "attn" in name or "attention" in name or "mixer" in name:
        return Operation.ATTENTION
    if "mlp" in name or "feed_forward" in name or "ffn" in name:
        return Operation.DENSE
    return None


def _time(module: nn.Module, operation: Operation, layer: int | None, recorder: Recorder, step: Step) -> None:
    start: list[Moment] = [0.0]

    def before(*_: Any) -> None:
        start[0] = recorder.now()

    def after(*_: Any) -> None:
        recorder.compute(operation, SpanKey(layer, step.micro_batch_or_none), start[0])

    _hook(module, before, after)


def _time_gate(block: nn.Module, layer: ExpertParallelLayer, recorder: Recorder) -> None:
    """The gate's time runs from the block's start to its experts'; the layer itself records its end."""

    def before(*_: Any) -> None:
        layer.gate_begun, layer.beside_gate = recorder.now(), []
        if layer.shared_expert is not None:
            layer.shared_expert.begin_block()

    block.register_forward_pre_hook(before)


def _time_shared_experts(block: nn.Module, layer: ExpertParallelLayer, recorder: Recorder) -> None:
    for name, child in block.named_children():
        if "shared" not in name or "gate" in name:
            continue
        forward, alone = child.forward, takes_hidden_states_alone(child)

        def timed(*inputs: Any, forward: Callable[..., Any] = forward, **options: Any) -> Any:
            start = recorder.now()
            out = forward(*inputs, **options)
            end = recorder.compute(Operation.SHARED_EXPERT, layer.span_key(), start)
            # Where the shared expert runs before the routed ones its time is not the gate's.
            if layer.gate_begun is not None:
                layer.beside_gate.append((start, end))
            return out

        child.forward = timed
        if alone:
            layer.shared_expert = SharedExpert(child)


def _hook(module: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> None:
    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
