"""One MoE layer's experts under expert parallelism, and its place in an unmodified transformers model.

Shapes: T tokens, V of them valid (the rest is padding), D hidden size, K experts per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from wingspan.runtime.dispatch import Dispatcher
from wingspan.runtime.experts import LocalExperts
from wingspan.runtime.monitor import LoadMonitor
from wingspan.runtime.recorder import Recorder
from wingspan.schedule.result import Operation

IMPLEMENTATION = "wingspan"
"""Name of our experts function in transformers' registry."""

_ATTRIBUTE = "expert_parallel_layer"


@dataclass
class Step:
    """What a step's layers need to know beyond their inputs."""

    valid_T: torch.Tensor | None = None
    """Which rows of the flattened batch are real tokens; None: all. Padding is never dispatched."""


class ExpertParallelLayer:
    """Replaces the body of a transformers experts module: dispatch, this rank's experts, combine."""

    def __init__(
        self,
        index: int,
        experts: LocalExperts,
        dispatcher: Dispatcher[Any],
        monitor: LoadMonitor,
        recorder: Recorder,
        step: Step,
    ) -> None:
        self.index = index
        self.experts = experts
        self.gate_start_seconds: float | None = None
        self._dispatcher = dispatcher
        self._monitor = monitor
        self._recorder = recorder
        self._step = step

    def use(self, dispatcher: Dispatcher[Any]) -> None:
        """From the next step on; all ranks at the same step. The experts must be where it thinks they are."""
        self._dispatcher = dispatcher

    def __call__(
        self, hidden_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        """The weighted sum of each token's experts (T, D); zero for padding. Collective over the EP group."""
        if self.gate_start_seconds is not None:
            self._recorder.compute(Operation.GATE, self.index, self.gate_start_seconds)
            self.gate_start_seconds = None
        valid_T = self._step.valid_T
        if valid_T is None:
            return self._exchange_and_compute(hidden_TD, experts_TK, weights_TK)
        y_VD = self._exchange_and_compute(hidden_TD[valid_T], experts_TK[valid_T], weights_TK[valid_T])
        y_TD = torch.zeros_like(hidden_TD)
        y_TD[valid_T] = y_VD
        return y_TD

    def _exchange_and_compute(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        recorder = self._recorder
        self._monitor.count(self.index, experts_TK)
        start = recorder.now()
        received, handle = self._dispatcher.dispatch(x_TD, experts_TK, weights_TK)
        traffic = handle.traffic
        start = recorder.transfer(Operation.DISPATCH, self.index, start, traffic.sent_R, traffic.received_R)
        y_ND = self.experts(received.rows_ND, received.counts_S)
        start = recorder.compute(Operation.EXPERT, self.index, start)
        y_TD = self._dispatcher.combine(y_ND, handle)
        recorder.transfer(Operation.COMBINE, self.index, start, traffic.received_R, traffic.sent_R)
        return y_TD.to(x_TD.dtype)


def experts_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every experts module of the model by its path, in layer order: those that transformers' registry serves."""
    for name, module in model.named_modules():
        if hasattr(module, "_is_expert_parallel") and hasattr(module, "num_experts"):
            yield name, module


def install(model: nn.Module, layers: dict[str, ExpertParallelLayer]) -> None:
    """Make the experts modules at these paths compute through their `ExpertParallelLayer`."""
    for path, layer in layers.items():
        object.__setattr__(model.get_submodule(path), _ATTRIBUTE, layer)
    model.set_experts_implementation(IMPLEMENTATION)  # type: ignore[operator]


def _experts_function(
    module: nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    layer: ExpertParallelLayer = getattr(module, _ATTRIBUTE)
    return layer(hidden_states, top_k_index, top_k_weights)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts_function)
