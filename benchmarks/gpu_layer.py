"""One MoE layer of decode on one rank, for `benchmarks.gpu`: on any device, so that it is tested where no GPU is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.experts import experts_module
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


def decode_layer(device: torch.device) -> Callable[[], torch.Tensor]:
    """A call of the layer on the same tokens each time."""
    transport = LocalTransport()
    dispatchers = Dispatchers(
        linear(1, EXPERTS, 1, EXPERTS), transport, Buffers(), device, DispatchOptions(DispatcherKind.FLAT)
    )
    layer = ExpertParallelLayer(
        0,
        0,
        LocalExperts(_experts(device)),
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


def _experts(device: torch.device) -> nn.Module:
    gate_up_EID, down_EDI = (
        torch.randn(*shape, device=device, dtype=torch.bfloat16) / shape[-1] ** 0.5
        for shape in ((EXPERTS, 2 * INNER, HIDDEN), (EXPERTS, HIDDEN, INNER))
    )
    return experts_module(gate_up_EID, down_EDI, "eager")


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
