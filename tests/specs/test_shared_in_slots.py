"""Shared experts that lie in slots: as many parameters, every token sends a row, nothing of it is chance."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulate.builders import deployment, model
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec
from wingspan.routing.shares import draw_loads
from wingspan.routing.trace import RoutingTrace
from wingspan.simulate.memory import memory_use
from wingspan.simulate.step import predict
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.memory import MemoryPart
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.workload import RecordedRouting
from wingspan.traffic.counted import count_traffic
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import Choice
from wingspan.traffic.expected import expected_traffic
from wingspan.traffic.shares import expert_shares

EVEN = {"n_group": 4, "topk_group": 2}


def test_the_model_keeps_its_parameters_and_its_router():
    before, after = model(), model().with_shared_in_slots()
    assert after.parameters.total == before.parameters.total
    assert after.parameters.active == before.parameters.active
    assert after.experts.router(after.hidden) == before.experts.router(before.hidden)
    assert (after.experts.count, after.experts.per_token, after.experts.shared_intermediate) == (65, 5, 0)
    assert model(**EVEN).with_shared_in_slots().experts.groups == 4


@pytest.mark.parametrize(
    ("of", "line"),
    [
        (model(n_shared_experts=0), "has no shared expert as large as a routed one"),
        (load_model("mixtral-8x7b"), "has no shared expert"),
        (load_model("qwen3-next-80b-a3b"), "differ from its routed ones in size, gate or format"),
    ],
)
def test_a_model_whose_shared_experts_do_not_fit_is_refused(of: ModelSpec, line: str):
    with pytest.raises(InputError, match=line):
        of.with_shared_in_slots()


def test_every_token_goes_to_it_and_routed_loads_are_drawn_as_before():
    step = deployment(of=model().with_shared_in_slots())
    shares_LE = expert_shares(step.model, step.workload)
    assert (shares_LE[:, 64] == 1).all()
    np.testing.assert_allclose(shares_LE[:, :64].sum(axis=1), 4)
    loads_PLE = draw_loads(shares_LE, 1001, 2, 0)
    assert loads_PLE[:, :, 64].tolist() == [[500.0] * 4, [501.0] * 4]
    np.testing.assert_array_equal(loads_PLE.sum(axis=(0, 2)), 5 * 1001)
    assert loads_PLE[..., :64].std() > 0


def test_copies_take_the_work_that_ranks_had_beside():
    beside = deployment(40, placement={"experts_per_rank": 2, "strategy": "balanced"})
    slots = deployment(
        40, of=model().with_shared_in_slots(), placement={"experts_per_rank": 2, "strategy": "balanced"}
    )
    rows = predict(slots).rows_LRS.sum()
    assert rows == pytest.approx(predict(beside).rows_LRS.sum() + 4 * slots.tokens)
    assert MemoryPart.SHARED_EXPERTS not in {
        part for part, size in memory_use(slots).parts.items() if size.any()
    }


@pytest.mark.parametrize("dispatcher", list(DispatcherKind))
def test_expected_traffic_is_what_tokens_count(dispatcher: DispatcherKind):
    of = model(**EVEN).with_shared_in_slots()
    step = deployment(32, of=of, placement={"experts_per_rank": 3, "strategy": "balanced"})
    placement, cluster = step.build_placement(), step.used_cluster
    rng = np.random.default_rng(3)
    tokens, layers = 32 * 1024, len(of.moe_layers)
    groups = rng.random((tokens, layers, 4)).argsort(axis=2)[..., :2]
    within = rng.random((tokens, layers, 2 * 16)).argsort(axis=2)[..., :4]
    routed = np.take_along_axis(groups, within // 16, axis=2) * 16 + within % 16
    chosen = np.concatenate([routed, np.full((tokens, layers, 1), 64)], axis=2)
    home = np.arange(tokens) % 32
    trace = RoutingTrace(
        experts_TLK=chosen,
        step_T=np.zeros(tokens, np.int64),
        request_T=np.arange(tokens),
        home_rank_T=home,
        num_experts=65,
        num_ranks=32,
    )
    counted = count_traffic(placement, trace, cluster, dispatcher)
    load_LE = np.stack([np.bincount(chosen[:, layer].ravel(), minlength=65) for layer in range(layers)])
    expected = expected_traffic(
        placement.slots_LRS, Demand(load_LE.astype(float), Choice.of(of.experts)), cluster, dispatcher
    )
    for level in ("scale_up_sent", "scale_out_sent"):
        np.testing.assert_allclose(
            getattr(expected.links, level).sum(), getattr(counted.links, level).sum(), rtol=0.03
        )


def test_a_trace_gets_the_shared_expert_as_a_further_choice():
    of = model().with_shared_in_slots()
    rng = np.random.default_rng(0)
    trace = RoutingTrace(
        experts_TLK=rng.random((256, 4, 64)).argsort(axis=2)[..., :4],
        step_T=np.zeros(256, np.int64),
        request_T=np.arange(256),
        home_rank_T=np.arange(256) % 32,
        num_experts=64,
        num_ranks=32,
    )
    load_LE = np.stack([np.bincount(trace.experts_TLK[:, layer].ravel(), minlength=64) for layer in range(4)])
    routing = RecordedRouting(trace="t.parquet", loads=tuple(map(tuple, load_LE.tolist()))).with_tokens(trace)
    step = deployment(32, of=of, placement={"experts_per_rank": 3}, tokens_per_gpu=8)
    step = step.model_copy(update={"workload": step.workload.model_copy(update={"routing": routing})})
    placement = PlacementSpec(ranks=32, experts_per_rank=3).build(expert_shares(of, step.workload))
    rows_LRS = step.traffic(placement, np.zeros((4, 65))).slot_rows_LRS
    shared = placement.slots_LRS == 64
    np.testing.assert_allclose((rows_LRS * shared).sum(axis=(1, 2)), 256)
