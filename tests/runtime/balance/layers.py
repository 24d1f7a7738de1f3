"""Expert-parallel layers over real transformers experts, and what they must give, for tests of migrations.

Shapes: T tokens, K experts per token, E experts, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

from wingspan.runtime.balance.migration import Site
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.placement import Placement

CPU = torch.device("cpu")
HIDDEN = 16
CONFIG = SimpleNamespace(
    _experts_implementation="eager", hidden_act="silu", hidden_size=HIDDEN, intermediate_size=8,
    num_local_experts=0, swiglu_alpha=1.702, swiglu_limit=7.0,
)  # fmt: skip


def experts_module(layer: int, held: Sequence[int], num_experts: int) -> nn.Module:
    """The hardest layout (transposed, interleaved, biases) with these experts' weights of a fixed model."""
    config = SimpleNamespace(**(vars(CONFIG) | {"num_local_experts": num_experts}))
    module = GptOssExperts(config)
    torch.manual_seed(layer)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
        parameter.data = parameter.data[list(held)].clone()
    return module


class Rank:
    """One rank's layers under a placement, with all that a migration needs."""

    def __init__(self, transport: Transport, placement: Placement, *, pack: bool = True) -> None:
        self.transport = transport
        self.recorder = Recorder(transport.world.rank, transport.world.size)
        self.monitor = LoadMonitor(placement.num_layers, placement.num_experts, CPU)
        self.dispatchers = Dispatchers(placement, transport, Buffers(), CPU, DEFAULT_DISPATCH)
        self.layers = [self._layer(placement, index, pack) for index in range(placement.num_layers)]
        everyone = range(placement.num_experts)
        self._whole = [experts_module(i, everyone, len(everyone)) for i in range(placement.num_layers)]

    def _layer(self, placement: Placement, index: int, pack: bool) -> ExpertParallelLayer:
        held = placement.experts_on(index, self.transport.world.rank)
        experts = LocalExperts(experts_module(index, held, placement.num_experts))
        if pack:
            experts.pack()
        dispatcher = self.dispatchers.for_layer(index)
        return ExpertParallelLayer(index, index, experts, dispatcher, self.monitor, self.recorder, Step())

    def site(self, channel: WeightChannel | None = None) -> Site:
        return Site(self.layers, self.dispatchers, self.transport, channel or WeightChannel())

    @torch.inference_mode()
    def step(self, seed: int) -> float:
        """All layers on random tokens (none on some ranks); how far the outputs are from the whole experts'."""
        rng = np.random.default_rng((seed, self.transport.world.rank))
        tokens = int(rng.integers(0, 7)) * int(rng.random() < 0.8)
        experts = self._whole[0].gate_up_proj.shape[0]
        top_k = min(2, experts)
        # Lower numbers are hotter, so that there is something to balance.
        weight_E = 1 / np.arange(1, experts + 1) ** 2
        share_E = weight_E / weight_E.sum()
        picks = [rng.choice(experts, top_k, replace=False, p=share_E) for _ in range(tokens)]
        experts_TK = torch.tensor(np.array(picks).reshape(tokens, top_k), dtype=torch.int64)
        weights_TK = torch.tensor(rng.random((tokens, top_k)), dtype=torch.float32)
        x_TD = torch.tensor(rng.standard_normal((tokens, HIDDEN)), dtype=torch.float32)
        worst = 0.0
        self.recorder.begin_step("decode", tokens)
        for layer, whole in zip(self.layers, self._whole, strict=True):
            y_TD = layer(x_TD, experts_TK, weights_TK)
            if tokens:
                worst = max(worst, float((y_TD - whole(x_TD, experts_TK, weights_TK)).abs().max()))
        self.recorder.end_step()
        return worst
