"""Where a model's values stop being finite: looked for only when a step's logits say that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from wingspan.runtime.model.experts_table import block_path, experts_modules


def rows_finite(logits_PV: torch.Tensor) -> torch.Tensor:
    """Which sequences can choose a token (P,): no NaN, no infinity but the -inf of tokens that the model rules out."""
    return logits_PV.amax(-1).isfinite()


def routers_finite(model: nn.Module) -> bool:
    """Whether every router's own weights are; one with NaN in its bias picks experts, and its scores show nothing."""
    return all(_finite(value) for router in _routers(model) for value in _own_values(router, recurse=True))


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The part of the model that is the first with values that are not finite, in words; None: there is none.

    Args:
        model: whose parts to watch.
        forward: runs it, on tokens without padding.
    """
    found: list[str] = []

    def look(path: str, module: nn.Module, output: object) -> None:
        if found:
            return
        for name, value in _named_values(module):
            if not _finite(value):
                found.append(f"{_layer_text(path)}the weights {path}.{name}")
                return
        if not all(_passes_on(value) for value in _tensors(output)):
            found.append(f"{_layer_text(path)}the output of {path or 'the model'}")

    def hook_of(path: str) -> Any:
        return lambda module, _inputs, output: look(path, module, output)

    hooks = [module.register_forward_hook(hook_of(path)) for path, module in model.named_modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _routers(model: nn.Module) -> Iterator[nn.Module]:
    """What stands beside each layer's experts and decides on them."""
    for path, module in experts_modules(model):
        for name, child in model.get_submodule(block_path(path, module)).named_children():
            if "gate" in name or "router" in name:
                yield child


def _own_values(module: nn.Module, *, recurse: bool) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse)
    yield from module.buffers(recurse)


def _named_values(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def _passes_on(value: torch.Tensor) -> bool:
    """Finite; -inf may be a score that rules something out, and makes what it reaches NaN where it is none."""
    return not value.is_floating_point() or not bool((value.isnan() | (value == torch.inf)).any())


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _layer_text(path: str) -> str:
    number = next((part for part in path.split(".") if part.isdecimal()), None)
    return "" if number is None else f"layer {number}: "
