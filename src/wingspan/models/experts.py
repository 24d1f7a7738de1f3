"""The experts of one MoE layer, stored as one tensor per projection, in two forms: plain and gated.

Both are entries of transformers' experts registry, so `model.set_experts_implementation(name)` replaces their
`forward` (with `grouped_mm`, or with Wingspan's own dispatch over ranks) without touching this code.

Shapes: T tokens, K experts per token, D hidden size, E experts, I inner width, N rows of one expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.integrations.moe import use_experts_implementation

from wingspan.models.configuration import WingspanMoeConfig


class _Experts(nn.Module):
    """What both forms share: the reference `forward`, one expert after the other."""

    def __init__(self, config: WingspanMoeConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.act_fn = ACT2FN[config.hidden_act]
        self.down_proj = nn.Parameter(
            torch.empty(config.num_experts, config.hidden_size, config.moe_intermediate_size)
        )

    def inner(self, rows_ND: Tensor, expert: int) -> Tensor:
        """Activated inner state (N, I) of one expert."""
        raise NotImplementedError

    def forward(self, hidden_states_TD: Tensor, top_k_index_TK: Tensor, top_k_weights_TK: Tensor) -> Tensor:
        """Weighted sum (T, D) over each token's chosen experts."""
        out_TD = torch.zeros_like(hidden_states_TD)
        for expert in top_k_index_TK.unique().tolist():
            token_N, choice_N = torch.where(top_k_index_TK == expert)
            inner_NI = self.inner(hidden_states_TD[token_N], expert)
            rows_ND = F.linear(inner_NI, self.down_proj[expert]) * top_k_weights_TK[token_N, choice_N, None]
            out_TD.index_add_(0, token_N, rows_ND.to(out_TD.dtype))
        return out_TD


@use_experts_implementation(has_gate=False)
class PlainExperts(_Experts):
    """Two matrices an expert: `down(act(up(x)))`. Parameters: `up_proj` (E, I, D), `down_proj` (E, D, I)."""

    def __init__(self, config: WingspanMoeConfig) -> None:
        super().__init__(config)
        self.up_proj = nn.Parameter(
            torch.empty(config.num_experts, config.moe_intermediate_size, config.hidden_size)
        )

    def inner(self, rows_ND: Tensor, expert: int) -> Tensor:
        """`act(up(x))`: (N, I)."""
        return self.act_fn(F.linear(rows_ND, self.up_proj[expert]))

    def forward(self, hidden_states_TD: Tensor, top_k_index_TK: Tensor, top_k_weights_TK: Tensor) -> Tensor:
        """Weighted sum (T, D) over each token's chosen experts."""
        return super().forward(hidden_states_TD, top_k_index_TK, top_k_weights_TK)


@use_experts_implementation
class GatedExperts(_Experts):
    """Three matrices an expert: `down(act(gate(x)) * up(x))`.

    Parameters: `gate_up_proj` (E, 2I, D), gate rows first, and `down_proj` (E, D, I).
    """

    def __init__(self, config: WingspanMoeConfig) -> None:
        super().__init__(config)
        self.gate_up_proj = nn.Parameter(
            torch.empty(config.num_experts, 2 * config.moe_intermediate_size, config.hidden_size)
        )

    def inner(self, rows_ND: Tensor, expert: int) -> Tensor:
        """`act(gate(x)) * up(x)`: (N, I)."""
        gate_NI, up_NI = F.linear(rows_ND, self.gate_up_proj[expert]).chunk(2, dim=-1)
        return self.act_fn(gate_NI) * up_NI

    def forward(self, hidden_states_TD: Tensor, top_k_index_TK: Tensor, top_k_weights_TK: Tensor) -> Tensor:
        """Weighted sum (T, D) over each token's chosen experts."""
        return super().forward(hidden_states_TD, top_k_index_TK, top_k_weights_TK)


def build_experts(config: WingspanMoeConfig) -> PlainExperts | GatedExperts:
    """The form that `config.gated_experts` asks for."""
    return GatedExperts(config) if config.gated_experts else PlainExperts(config)
