"""Counts where the host reads a result of the device back: on a GPU each such place waits until the GPU is idle.

Seen at torch's own functions, so it can be counted where no GPU is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

_ALWAYS = (
    "tolist",
    "item",
    "cpu",
    "numpy",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__contains__",
    "nonzero",
    "argwhere",
    "masked_select",
    "bincount",
    "unique",
    "unique_consecutive",
    "equal",
    "allclose",
    "is_nonzero",
)
"""The host asks for values, or the result's size depends on them."""


class ReadBacks(TorchFunctionMode):
    """Active in a `with`: `found` has the name of each read-back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = (resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2]
        if name in _ALWAYS or _depends_on_values(name, args, kwargs):
            self.found.append(name)
        return func(*args, **kwargs)


def _depends_on_values(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name in ("__getitem__", "__setitem__"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in index)
    if name == "repeat_interleave":
        repeats = kwargs.get("repeats", args[1] if len(args) > 1 else None)
        return isinstance(repeats, torch.Tensor) and kwargs.get("output_size") is None
    return name == "where" and len(args) == 1
