import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models.conftest import SMALL
from wingspan.models import WingspanMoeConfig, WingspanMoeForCausalLM, seed


@pytest.fixture
def ids_BS() -> torch.Tensor:
    return torch.randint(0, 256, (3, 11), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_save_and_load_give_the_same_model(model, ids_BS, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, WingspanMoeForCausalLM)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys()
    assert all(torch.equal(saved[name], read[name]) for name in saved)
    torch.testing.assert_close(model(ids_BS).logits, loaded(ids_BS).logits)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_transformers_experts_implementations_agree_with_ours(model, ids_BS, implementation):
    model.set_experts_implementation("eager")
    reference = model(ids_BS).logits
    model.set_experts_implementation(implementation)
    torch.testing.assert_close(model(ids_BS).logits, reference, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_implementations_agree(model, ids_BS):
    model.set_attn_implementation("eager")
    reference = model(ids_BS).logits
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(ids_BS).logits, reference, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_generation_with_the_cache_equals_full_recompute(model, ids_BS):
    generated = model.generate(ids_BS, max_new_tokens=12, do_sample=False)
    recomputed = ids_BS
    for _ in range(12):
        best = model(recomputed, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        recomputed = torch.cat([recomputed, best], dim=1)
    assert torch.equal(generated, recomputed)


@torch.no_grad()
def test_a_later_token_never_changes_an_earlier_one(model, ids_BS):
    changed = ids_BS.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 256
    before, after = model(ids_BS).logits, model(changed).logits
    torch.testing.assert_close(before[:, :-1], after[:, :-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[:, -1], after[:, -1])


@torch.no_grad()
def test_the_routers_weights_are_the_renormalised_top_of_the_softmax(model):
    hidden_TD = torch.randn(5, 32, generator=torch.Generator().manual_seed(4))
    logits_TE, weights_TK, experts_TK = model.model.layers[2].mlp.gate(hidden_TD)
    top_TK, expected_TK = logits_TE.softmax(-1).topk(2)
    assert torch.equal(experts_TK, expected_TK)
    torch.testing.assert_close(weights_TK, top_TK / top_TK.sum(-1, keepdim=True))


def test_the_balancing_loss_is_added_and_reaches_the_router(model, ids_BS):
    plain = model(ids_BS, labels=ids_BS).loss
    output = model(ids_BS, labels=ids_BS, output_router_logits=True)
    assert len(output.router_logits) == 2  # one per MoE layer, none for the dense ones
    torch.testing.assert_close(output.loss, plain + 0.001 * output.aux_loss)
    output.aux_loss.backward()
    assert model.model.layers[2].mlp.gate.weight.grad.abs().sum() > 0


def test_dense_layers_first_then_experts_at_the_documented_paths():
    model = WingspanMoeForCausalLM(WingspanMoeConfig(**SMALL))
    names = set(model.state_dict())
    assert {"model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"} <= names
    assert {"model.layers.2.mlp.gate.weight", "model.layers.2.mlp.experts.up_proj"} <= names
    assert not any(name.startswith("model.layers.1.mlp.experts") for name in names)


def test_the_seed_at_full_size_has_the_seeds_layers_and_bytes():
    with torch.device("meta"):
        model = WingspanMoeForCausalLM(seed()).to(torch.bfloat16)
    layers = model.model.layers
    assert len(layers) == 61
    assert [hasattr(layer.mlp, "experts") for layer in layers] == [False] * 3 + [True] * 58
    attention_bytes = [sum(p.numel() * p.element_size() for p in x.self_attn.parameters()) for x in layers]
    assert set(attention_bytes) == {939_524_096}
    assert sum(p.numel() * p.element_size() for p in layers[0].mlp.parameters()) == 58_720_256
