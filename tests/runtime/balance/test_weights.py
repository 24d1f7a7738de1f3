"""An expert's weights leave one rank's slot as bytes and take another's, in every layout transformers has."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.runtime.model.test_experts import HIDDEN, LAYOUTS, OUTSIDE, SLOTS, _layout
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.experts_table import rows_per_expert


def rows(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(5)).to(dtype)


def cut(experts: torch.nn.Module, slots: list[int]) -> torch.nn.Module:
    """Only these slots of a module's per-expert parameters."""
    for name, rows in rows_per_expert(experts).items():
        parameter = experts.get_parameter(name)
        by_slot = parameter.data.view(SLOTS, rows, *parameter.shape[1:])
        parameter.data = by_slot[slots].flatten(0, 1).clone()
    return experts


@pytest.mark.parametrize("pack", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize(("family", "name"), [*LAYOUTS, *OUTSIDE])
def test_moved_experts_compute_the_same(family, name, pack):
    """Slots 2 and 1 come to a rank that had only slot 0, which moves to the middle."""
    source, here = LocalExperts(_layout(family, name)), LocalExperts(cut(_layout(family, name), [0]))
    for experts, wanted in zip((source, here), pack, strict=True):
        if wanted:
            experts.pack()
    counts = [2, 0, 3, 0]
    with torch.no_grad():
        expected = LocalExperts(_layout(family, name))(rows(5), counts)
        two, one = (here.prepare(source.read(slot)) for slot in (2, 1))
        here.replace([two, 0, one])
        out = here(torch.cat([rows(5)[2:], rows(5)[:2]]), [3, 2, 0])
    assert_close(out, torch.cat([expected[2:], expected[:2]]), rtol=1e-5, atol=1e-5)
    assert here.weight_bytes == 3 * here.slot_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize(("family", "name"), [*LAYOUTS, *OUTSIDE])
def test_bytes_survive_the_way_there_and_back_exactly(family, name, pack, dtype):
    source = LocalExperts(_layout(family, name, dtype))
    raw = [source.read(slot) for slot in range(SLOTS)]
    assert [len(r) for r in raw] == [source.slot_bytes] * SLOTS
    there = LocalExperts(cut(_layout(family, name, dtype), []))
    if pack:
        there.pack()
    assert there.weight_bytes == 0
    there.replace([there.prepare(r) for r in raw])
    for slot in range(SLOTS):
        assert torch.equal(there.read(slot), raw[slot])
    there.replace([3, 1])
    assert torch.equal(there.read(0), raw[3])
    there.replace([])
    assert there.weight_bytes == 0
    assert there(rows(0, dtype), []).shape == (0, HIDDEN)
    there.replace([there.prepare(raw[2])])
    assert torch.equal(there.read(0), raw[2])


def test_rows_are_counted():
    experts = LocalExperts(_layout("mixtral", "MixtralExperts"))
    for counts in ([2, 0, 3, 1], [0] * SLOTS):
        experts(rows(sum(counts)), counts)
    assert experts.rows == 6
