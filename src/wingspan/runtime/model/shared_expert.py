"""The shared expert beside the dispatch, on an unmodified model.

A block's own code calls its shared expert before or after its routed experts. Where it comes after, its output can be
computed while the routed experts' rows travel, and handed out when the block asks for it.

Shapes: T tokens, D hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def takes_hidden_states_alone(module: nn.Module) -> bool:
    """Whether a shared expert needs nothing but the block's hidden states, so that it can be computed ahead."""
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) == 1


class SharedExpert:
    """Wraps the shared expert of one block.

    Args:
        module: of the block; `takes_hidden_states_alone`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._forward: Callable[..., torch.Tensor] = module.forward
        # By address of the input, which is kept beside the output so that no other tensor can take its place.
        self._ahead: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._asked = False
        module.forward = self._hand_out

    def begin_block(self) -> None:
        """The block begins: it has not asked for its shared expert yet."""
        self._asked = False

    @property
    def comes_later(self) -> bool:
        """Whether the block will still ask for it; only inference can compute it ahead."""
        return not self._asked and not torch.is_grad_enabled()

    def compute_ahead(self, hidden_TD: torch.Tensor) -> None:
        """Compute what the block will ask for."""
        self._ahead[hidden_TD.data_ptr()] = (hidden_TD, self._forward(hidden_TD))

    def _hand_out(self, hidden: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        """The module's forward: the output computed ahead for the same memory, else a fresh one."""
        _, ahead_TD = self._ahead.pop(hidden.data_ptr(), (None, None))
        if ahead_TD is not None and ahead_TD.numel() == hidden.numel():
            return ahead_TD.view(hidden.shape)
        self._asked = True
        return self._forward(hidden, *rest, **options)
