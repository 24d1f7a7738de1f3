"""`LocalExperts` against every experts class of transformers, forward and backward.

Shapes: N rows, S slots, D hidden size, I intermediate size.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from wingspan.runtime.model import slot_linear
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.experts_table import need_row

SLOTS = 4
HIDDEN = 48
INTERMEDIATE = 32

CONFIG = SimpleNamespace(
    _experts_implementation="eager",
    hidden_act="silu",
    hidden_activation="gelu_pytorch_tanh",
    mlp_hidden_act="relu2",
    hidden_size=HIDDEN,
    moe_hidden_size=HIDDEN,
    moe_latent_size=None,
    intermediate_size=INTERMEDIATE,
    moe_intermediate_size=INTERMEDIATE,
    num_experts=SLOTS,
    num_local_experts=SLOTS,
    n_routed_experts=SLOTS,
    moe_num_experts=SLOTS,
    swiglu_alpha=1.702,
    swiglu_limit=0.05,
    mlp_gate_softcap=2.0,
    mlp_up_softcap=2.0,
    post_norm_eps=1e-6,
    ffn_hidden_size=INTERMEDIATE,
    ffn_act_fn={"name": "silu"},
    expert_ffn_hidden_size=INTERMEDIATE,
    zero_expert_num=0,
)
"""Every attribute that some experts class reads. The limit is low enough that clamping happens."""


def _decorated_classes() -> list[tuple[str, str]]:
    """(module, class) of every experts class that transformers' registry serves, read from its sources."""
    folder = Path(transformers.__file__).parent / "models"
    pattern = re.compile(r"^@use_experts_implementation.*\nclass (\w+)", re.MULTILINE)
    return [
        (f"transformers.models.{file.parent.name}.{file.stem}", name)
        for file in sorted(folder.glob("*/modeling_*.py"))
        for name in pattern.findall(file.read_text(encoding="utf-8"))
    ]


CLASSES = _decorated_classes()
OUTSIDE = [
    pytest.param("dbrx", "DbrxExperts", id="dbrx"),
    pytest.param("longcat_flash", "LongcatFlashExperts", id="longcat"),
    pytest.param("step3p7", "Step3p7Experts", id="step"),
]
"""Outside the registry, and called as its modules are."""
LAYOUTS = [
    pytest.param(family, name, id=layout)
    for family, name, layout in (
        ("mixtral", "MixtralExperts", "plain"),
        ("gpt_oss", "GptOssExperts", "transposed-interleaved-bias"),
        ("openai_privacy_filter", "OpenAIPrivacyFilterExperts", "transposed-bias"),
        ("aria", "AriaExperts", "transposed"),
        ("nemotron_h", "NemotronHExperts", "ungated"),
        ("muse_spark", "MuseSparkExperts", "post-norm"),
    )
    # The oldest transformers that runs has not all of them.
    if (f"transformers.models.{family}.modeling_{family}", name) in CLASSES
]


def _build(module: str, name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(7)
    experts: nn.Module = getattr(importlib.import_module(module), name)(CONFIG)
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.3)
    return experts.to(dtype)


def _layout(family: str, name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return _build(f"transformers.models.{family}.modeling_{family}", name, dtype)


def _rows(counts: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(sum(counts), HIDDEN, generator=torch.Generator().manual_seed(3)).to(dtype)


def _eager(module: nn.Module, rows_ND: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """transformers' own forward with each row routed, at weight 1, to the expert whose slot it lies in.

    And again at weight 0, because not every module takes a single pick.
    """
    expert_N1 = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))[:, None]
    weights_N2 = torch.tensor([1.0, 0.0], dtype=rows_ND.dtype).expand(len(rows_ND), 2)
    return module(rows_ND, expert_N1.expand(-1, 2), weights_N2).view_as(rows_ND)


def test_transformers_sources_list_many_architectures() -> None:
    assert len(CLASSES) >= 55
    assert len(LAYOUTS) >= 4


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_every_architecture_gives_transformers_own_rows(module: str, name: str) -> None:
    experts = _build(module, name)
    counts = [5, 0, 1, 7]
    rows_ND = _rows(counts)
    with torch.no_grad():
        expected_ND = _eager(experts, rows_ND, counts)
        assert expected_ND.abs().max() > 1e-3
        assert_close(LocalExperts(experts)(rows_ND, counts), expected_ND, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "name"), OUTSIDE)
def test_experts_outside_the_registry_give_transformers_own_rows(family: str, name: str) -> None:
    test_every_architecture_gives_transformers_own_rows(
        f"transformers.models.{family}.modeling_{family}", name
    )


@pytest.mark.parametrize(("family", "name"), [*LAYOUTS, *OUTSIDE])
def test_gradients_equal_eager_ones(family: str, name: str) -> None:
    counts = [3, 0, 9, 2]
    gradients = []
    for compute in (_eager, lambda module, rows, counts: LocalExperts(module)(rows, counts)):
        module = _layout(family, name)
        rows_ND = _rows(counts).requires_grad_()
        out_ND = compute(module, rows_ND, counts)
        (out_ND * torch.linspace(-1, 1, HIDDEN)).sum().backward()
        gradients.append({"rows": rows_ND.grad} | {n: p.grad for n, p in module.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "name"), LAYOUTS)
def test_without_rows_backward_still_reaches_rows_and_parameters(family: str, name: str) -> None:
    module = _layout(family, name)
    rows_ND = torch.empty(0, HIDDEN, requires_grad=True)
    out_ND = LocalExperts(module)(rows_ND, [0] * SLOTS)
    assert out_ND.shape == (0, HIDDEN)
    out_ND.sum().backward()
    assert rows_ND.grad is not None
    for matrix in module.parameters():
        assert matrix.grad is not None
        assert not matrix.grad.any()


def test_a_rank_without_slots_passes_zero_rows_on() -> None:
    module = _layout("mixtral", "MixtralExperts")
    for matrix in module.parameters():
        matrix.data = matrix.data[:0]
    experts = LocalExperts(module)
    rows_ND = torch.empty(0, HIDDEN, requires_grad=True)
    out_ND = experts(rows_ND, [])
    assert out_ND.shape == (0, HIDDEN)
    out_ND.sum().backward()
    assert rows_ND.grad is not None
    assert experts.weight_bytes == 0


@pytest.mark.parametrize(("family", "name"), LAYOUTS)
def test_grouped_product_equals_the_plain_ones(
    family: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _layout(family, name, torch.bfloat16)
    counts = [4, 0, 6, 1]
    rows_ND = _rows(counts, torch.bfloat16)
    with torch.no_grad():
        plain_ND = LocalExperts(module)(rows_ND, counts)
        monkeypatch.setattr(slot_linear, "linear_by_slot", slot_linear.grouped_linear)
        grouped_ND = LocalExperts(module)(rows_ND, counts)
    # Rounded before the bias in one of them.
    assert_close(grouped_ND, plain_ND, rtol=2e-2, atol=2e-2 * float(plain_ND.abs().max()))


def test_weight_bytes_counts_matrices_and_biases() -> None:
    matrices = SLOTS * 3 * HIDDEN * INTERMEDIATE
    assert LocalExperts(_layout("mixtral", "MixtralExperts")).weight_bytes == matrices * 4
    biases = SLOTS * (2 * INTERMEDIATE + HIDDEN)
    assert (
        LocalExperts(_layout("gpt_oss", "GptOssExperts", torch.bfloat16)).weight_bytes
        == (matrices + biases) * 2
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", [[4, 0, 6, 1], [0, 0, 0, 3], [0] * SLOTS])
@pytest.mark.parametrize(("family", "name"), LAYOUTS)
def test_packed_experts_compute_the_same_without_gradients(
    family: str, name: str, counts: list[int], dtype: torch.dtype
) -> None:
    module = _layout(family, name, dtype)
    rows_ND = _rows(counts, dtype)
    expected_ND = LocalExperts(module)(rows_ND, counts).detach()
    experts = LocalExperts(module)
    before = experts.weight_bytes
    experts.pack()
    out_ND = experts(rows_ND, counts)
    assert not out_ND.requires_grad
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert_close(out_ND, expected_ND, rtol=tolerance, atol=tolerance)
    assert experts.weight_bytes == before


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", [[4, 0, 6, 1], [0, 0, 1100, 3], [0] * SLOTS])
@pytest.mark.parametrize(("family", "name"), LAYOUTS)
def test_in_place_gives_the_same_rows(
    family: str, name: str, counts: list[int], dtype: torch.dtype, packed: bool
) -> None:
    module = _layout(family, name, dtype)
    experts = LocalExperts(module)
    if packed:
        experts.pack()
    rows_ND = _rows(counts, dtype)
    with torch.no_grad():
        expected_ND = experts(rows_ND, counts)
        out_ND = experts(rows_ND, counts, in_place=True)
    assert_close(out_ND, expected_ND, rtol=0, atol=0)
    assert out_ND.data_ptr() == rows_ND.data_ptr() or module.has_post_expert_norm


@pytest.mark.parametrize(("family", "name"), [*LAYOUTS, *OUTSIDE])
def test_gradients_keep_the_rows(family: str, name: str) -> None:
    counts = [4, 0, 6, 1]
    rows_ND = _rows(counts)
    LocalExperts(_layout(family, name))(rows_ND, counts, in_place=True)
    assert torch.equal(rows_ND, _rows(counts))


def test_packing_frees_the_modules_own_matrices_and_can_be_read_back() -> None:
    module = _layout("gpt_oss", "GptOssExperts")
    layer = slot_linear.SlotLinear(module, need_row(module).down)
    matrices_SOJ = layer.weight_SOJ.detach().clone()
    layer.pack()
    assert module.down_proj.numel() == 0
    assert torch.equal(layer.weight_SOJ, matrices_SOJ)
