from typing import Any

import pytest
import torch

from wingspan.models import WingspanMoeConfig, WingspanMoeForCausalLM

SMALL: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
}
"""Few and uneven dimensions: three heads of 8 do not make the hidden size of 32."""


@pytest.fixture(
    params=[
        {},
        {"gated_experts": True, "hidden_act": "silu"},
        {"n_shared_experts": 2},
        {"num_key_value_heads": 1},
    ],
    ids=["plain", "gated", "shared", "one-kv-head"],
)
def model(request: pytest.FixtureRequest) -> WingspanMoeForCausalLM:
    torch.manual_seed(0)
    return WingspanMoeForCausalLM(WingspanMoeConfig(**{**SMALL, **request.param})).eval()
