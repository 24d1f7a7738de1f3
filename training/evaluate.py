"""What a trained model is worth: its loss and its routing for each kind of text.

Shapes: E experts, L MoE layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.corpus import SHARES
from wingspan.models import WingspanMoeForCausalLM
from wingspan.models.balancing import expert_load


@torch.no_grad()
def loss_by_kind(model: WingspanMoeForCausalLM, batches: dict[str, Tensor]) -> dict[str, float]:
    """Mean next-byte loss in nats for each kind's batch (sequences, length)."""
    return {
        kind: float(model(input_ids=batch, labels=batch, use_cache=False).loss)
        for kind, batch in batches.items()
    }


def weighted_loss(losses: dict[str, float]) -> float:
    """One figure: the kinds' losses, weighted as training weights them."""
    return sum(SHARES[kind] * loss for kind, loss in losses.items())


@torch.no_grad()
def measure_load(model: WingspanMoeForCausalLM, batch: Tensor) -> Tensor:
    """Tokens that each expert of each MoE layer gets from `batch`: (L, E)."""
    output = model(input_ids=batch, output_router_logits=True, use_cache=False)
    return expert_load(output.router_logits, model.num_experts_per_tok)


def imbalance(model: WingspanMoeForCausalLM, batch: Tensor) -> float:
    """Max / mean tokens per expert, for each MoE layer, then averaged over layers."""
    load_LE = measure_load(model, batch).double()
    return float((load_LE.amax(1) / load_LE.mean(1)).mean())
