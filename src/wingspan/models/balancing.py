"""The load-balancing loss, layer by layer.

transformers' own (`output.aux_loss`) adds all layers up before it compares experts, so two layers that each use
half of their experts look balanced together. This one compares within each layer.

Shapes: T tokens, E experts, L MoE layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def expert_load(router_logits: Sequence[Tensor], top_k: int) -> Tensor:
    """Count each expert's tokens in each MoE layer, (L, E), from each layer's router logits (T, E)."""
    counts = [
        torch.bincount(logits_TE.topk(top_k).indices.flatten(), minlength=logits_TE.shape[1])
        for logits_TE in router_logits
    ]
    return torch.stack(counts)


def balancing_loss(router_logits: Sequence[Tensor], load_LE: Tensor) -> Tensor:
    """Sum over layers of E x (share of the load) . (mean routing probability): 1 per layer where both are even.

    Switch Transformer, arXiv:2101.03961, eq. 4-6. The load carries no gradient and comes in from outside, so ranks
    that each see a part of the batch can add their loads up first and then average this loss.
    """
    share_LE = load_LE / load_LE.sum(1, keepdim=True)
    mean_probability_LE = torch.stack([logits_TE.float().softmax(-1).mean(0) for logits_TE in router_logits])
    return load_LE.shape[1] * (share_LE * mean_probability_LE).sum()
