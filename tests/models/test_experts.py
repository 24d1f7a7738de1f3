import pytest
import torch
from torch.nn import functional as F

from tests.models.conftest import SMALL
from wingspan.models import WingspanMoeConfig, seed
from wingspan.models.experts import GatedExperts, PlainExperts, build_experts


def _bytes_per_expert(config: WingspanMoeConfig) -> int:
    with torch.device("meta"):
        experts = build_experts(config).to(torch.bfloat16)
    return sum(p[0].numel() * p.element_size() for p in experts.parameters())


def test_an_expert_at_the_seeds_dimensions_has_the_seeds_bytes():
    config = seed()
    assert _bytes_per_expert(config) == 58_720_256
    config.gated_experts = True
    assert _bytes_per_expert(config) == 88_080_384


def _experts_by_hand(experts: PlainExperts | GatedExperts, x_TD, experts_TK, weights_TK):
    out_TD = torch.zeros_like(x_TD)
    for t in range(len(x_TD)):
        for e, w in zip(experts_TK[t], weights_TK[t], strict=True):
            if isinstance(experts, PlainExperts):
                inner = F.gelu(experts.up_proj[e] @ x_TD[t])
            else:
                gate, up = (experts.gate_up_proj[e] @ x_TD[t]).split(24)
                inner = F.gelu(gate) * up
            out_TD[t] += w * (experts.down_proj[e] @ inner)
    return out_TD


@pytest.mark.parametrize("gated", [False, True])
def test_both_forms_are_the_weighted_sum_of_their_definition(gated):
    config = WingspanMoeConfig(**{**SMALL, "gated_experts": gated})
    generator = torch.Generator().manual_seed(1)
    experts = build_experts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x_TD = torch.randn(7, 32, generator=generator)
    experts_TK = torch.rand(7, 6, generator=generator).topk(2).indices
    weights_TK = torch.rand(7, 2, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(
            experts(x_TD, experts_TK, weights_TK), _experts_by_hand(experts, x_TD, experts_TK, weights_TK)
        )


def test_no_tokens_give_no_rows():
    experts = build_experts(WingspanMoeConfig(**SMALL))
    out_TD = experts(torch.empty(0, 32), torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2))
    assert out_TD.shape == (0, 32)
