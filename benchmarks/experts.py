"""transformers' own gated experts over given weights, for whoever computes or compares one MoE layer.

Shapes: E experts, D hidden size, I intermediate size.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts


def experts_module(gate_up_EID: torch.Tensor, down_EDI: torch.Tensor, implementation: str) -> nn.Module:
    """transformers' gated experts over these weights."""
    config = MixtralConfig(
        hidden_size=down_EDI.shape[1], intermediate_size=down_EDI.shape[2], num_local_experts=len(down_EDI)
    )
    config._experts_implementation = implementation
    with torch.device("meta"):
        module = MixtralExperts(config)
    module.gate_up_proj = nn.Parameter(gate_up_EID, requires_grad=False)
    module.down_proj = nn.Parameter(down_EDI, requires_grad=False)
    return module
