"""How often a MoE layer's host reads back from its device: once with several ranks, never with one."""

from __future__ import annotations

import pytest
import torch
from benchmarks.experts import experts_module

from tests.runtime.read_backs import ReadBacks
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import Dispatchers, DispatchOptions
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model import slot_linear
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step, TokenRows, flow_named
from wingspan.runtime.transport.transport import LocalTransport, Transport
from wingspan.specs.execution import DispatcherKind

CPU = torch.device("cpu")
EXPERTS, HIDDEN, INNER, TOP_K, TOKENS = 8, 16, 8, 2, 6


def layer_on(transport: Transport, kind: DispatcherKind, schedule: str) -> ExpertParallelLayer:
    """One MoE layer, whose exchanges run in this thread, as with NCCL."""
    size = transport.world.size
    slots = EXPERTS // size
    placement = linear(1, EXPERTS, size, slots)
    dispatchers = Dispatchers(placement, transport, Buffers(), CPU, DispatchOptions(kind))
    return ExpertParallelLayer(
        0,
        0,
        LocalExperts(
            experts_module(torch.randn(slots, 2 * INNER, HIDDEN), torch.randn(slots, HIDDEN, INNER), "eager")
        ),
        dispatchers.for_layer(0),
        LoadMonitor(1, EXPERTS, CPU),
        Recorder(transport.world.rank, size),
        Step(flow=flow_named(schedule), communication=None),
    )


def read_backs(layer: ExpertParallelLayer, *, padding: bool) -> list[str]:
    """Of one call of the layer."""
    torch.manual_seed(layer.experts.rows)
    x_TD = torch.randn(TOKENS, HIDDEN)
    experts_TK = torch.rand(TOKENS, EXPERTS).topk(TOP_K).indices
    layer._step.tokens = TokenRows(torch.tensor([0, 2, 3]), TOKENS) if padding else None
    with torch.inference_mode(), ReadBacks() as counted:
        layer(x_TD, experts_TK, torch.full((TOKENS, TOP_K), 0.5))
    return counted.found


@pytest.mark.parametrize("schedule", ["sequential", "chunks:2"])
@pytest.mark.parametrize("kind", [DispatcherKind.FLAT, DispatcherKind.DEDUPLICATED])
def test_a_layer_of_several_ranks_reads_back_once(kind: DispatcherKind, schedule: str) -> None:
    def work(transport: Transport) -> None:
        layer = layer_on(transport, kind, schedule)
        for padding in (False, True):
            assert read_backs(layer, padding=padding) == ["tolist"]

    run_ranks(work, 2, 1, CPU)


@pytest.mark.parametrize("kind", [DispatcherKind.FLAT, DispatcherKind.DEDUPLICATED])
def test_one_rank_reads_nothing_back_where_experts_take_one_grouped_product(
    kind: DispatcherKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_linear, "_takes_grouped_product", lambda *_: True)
    layer = layer_on(LocalTransport(), kind, "sequential")
    assert read_backs(layer, padding=True) == []
    monkeypatch.undo()
    assert read_backs(layer, padding=True) == ["tolist"], "a product per expert needs numbers"


def test_what_reads_back_is_found() -> None:
    x = torch.arange(4)
    with ReadBacks() as counted:
        x[x > 1]
        x.bincount()
        bool(x.any())
        x.repeat_interleave(x)
        x.repeat_interleave(x, output_size=6)
        x[torch.tensor([0, 1])]
        x.nonzero()
        x.tolist()
    assert counted.found == [
        "__getitem__",
        "bincount",
        "__bool__",
        "repeat_interleave",
        "nonzero",
        "tolist",
    ]
