"""One MoE layer of decode on one rank, for `benchmarks.gpu`: on any device, so that it is tested where no GPU is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step
from wingspan.runtime.transport.transport import LocalTransport
from wingspan.specs.execution import DispatcherKind

EXPERTS, TOP_K, HIDDEN, INNER, TOKENS = 32, 4, 1024, 512, 64


class _Experts(nn.Module):
    """Experts as transformers' registry lays them out."""

    is_concatenated, is_transposed, has_bias, has_gate = True, False, False, True

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.num_experts = EXPERTS
        self.gate_up_proj = self._weights(EXPERTS, 2 * INNER, HIDDEN, device=device)
        self.down_proj = self._weights(EXPERTS, HIDDEN, INNER, device=device)

    @staticmethod
    def _weights(*shape: int, device: torch.device) -> nn.Parameter:
        values = torch.randn(*shape, device=device, dtype=torch.bfloat16) / shape[-1] ** 0.5
        return nn.Parameter(values, requires_grad=False)

    def _apply_gate(self, hidden_NI: torch.Tensor) -> torch.Tensor:
        gate_NI, up_NI = hidden_NI.chunk(2, -1)
        return nn.functional.silu(gate_NI) * up_NI


def decode_layer(device: torch.device) -> Callable[[], torch.Tensor]:
    """A call of the layer on the same tokens each time."""
    transport = LocalTransport()
    dispatchers = Dispatchers(
        linear(1, EXPERTS, 1, EXPERTS), transport, Buffers(), device, DispatchOptions(DispatcherKind.FLAT)
    )
    layer = ExpertParallelLayer(
        0,
        0,
        LocalExperts(_Experts(device)),
        dispatchers.for_layer(0),
        LoadMonitor(1, EXPERTS, device),
        Recorder(0, 1),
        Step(communication=None),
    )
    x_TD = torch.randn(TOKENS, HIDDEN, device=device, dtype=torch.bfloat16)
    experts_TK = torch.rand(TOKENS, EXPERTS, device=device).topk(TOP_K).indices
    weights_TK = torch.full((TOKENS, TOP_K), 1 / TOP_K, device=device)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return layer(x_TD, experts_TK, weights_TK)

    return call


def synchronisations(call: Callable[[], object]) -> int:
    """How often one call makes the host wait for the GPU, as CUDA's own debugging mode sees it."""
    call()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
