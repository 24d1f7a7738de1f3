"""Experts cut over neighbouring ranks, beside experts that lie whole."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.builders import cluster, deployment
from wingspan.cost.exchange import Collective, collective_seconds
from wingspan.deployment import Deployment, load_deployment, save_deployment
from wingspan.describe import Description, deployment_of, template_of
from wingspan.errors import InputError
from wingspan.routing.statistics import expert_load
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace import concatenate
from wingspan.routing.workloads import workload
from wingspan.schedule.result import Operation
from wingspan.simulate.memory import memory_use
from wingspan.simulate.placing import objective_of
from wingspan.simulate.planning import make_plan
from wingspan.simulate.step import predict, simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.memory import MemoryPart
from wingspan.specs.workload import RecordedRouting
from wingspan.traffic.planes import plane_of

_COLLECTIVES = {Operation.ALL_GATHER, Operation.REDUCE_SCATTER, Operation.ALL_REDUCE}


def _cut(groups: int, cut: int, attention: int = 1, **work: Any) -> Deployment:
    options = {
        "expert_tensor_parallel": cut,
        "attention_ranks": attention,
        "dispatcher": "flat",
        "shared_beside_dispatch": False,
    }
    work = {"fluctuating": False, **work}
    return deployment(ranks=groups, on=cluster(gpus=32), options=options, **work)


@pytest.mark.parametrize(("groups", "cut"), [(16, 2), (4, 8), (2, 16), (1, 32), (1, 8)])
def test_weights_and_arithmetic_are_shared_evenly(groups: int, cut: int) -> None:
    made, whole = predict(_cut(groups, cut)), predict(_cut(groups * cut, 1))
    held, before = (memory_use(p.deployment).parts[MemoryPart.EXPERTS] for p in (made, whole))
    assert held == pytest.approx(before)
    assert made.deployment.ranks == whole.deployment.ranks == len(made.flops_R)
    assert made.flops_R == pytest.approx(whole.flops_R)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_group_of_all_dispatches_nothing(phase: str) -> None:
    by_operation = simulate(_cut(1, 16, phase=phase)).operation_seconds
    assert not {Operation.DISPATCH, Operation.COMBINE} & set(by_operation)
    assert set(by_operation) & _COLLECTIVES == {Operation.ALL_GATHER, Operation.REDUCE_SCATTER}


def test_attention_and_experts_of_one_group_are_summed_by_all_reduces() -> None:
    made = _cut(1, 16, 16)
    prediction = predict(made)
    tasks = [task for task in prediction.timeline.schedule.tasks if task.operation in _COLLECTIVES]
    assert {task.operation for task in tasks} == {Operation.ALL_REDUCE}
    assert len(tasks) == 2 * made.model.layers
    tokens = made.tokens * made.model.hidden * 2
    each = float(collective_seconds(prediction.cluster, Collective.ALL_REDUCE, tokens, 16))
    spent = simulate(made).operation_seconds[Operation.ALL_REDUCE][0]
    assert spent == pytest.approx(2 * made.model.layers * each)


def test_a_layers_price_is_what_the_step_pays() -> None:
    prediction = predict(_cut(4, 4, tokens_per_gpu=512))
    busy = simulate(prediction.deployment).operation_seconds
    paid = sum(busy[op][0] for op in (Operation.DISPATCH, Operation.COMBINE, *_COLLECTIVES) if op in busy)
    assert paid == pytest.approx(float(prediction.moe.exchanges_L.sum()))


def test_rows_between_groups_are_divided_among_their_ranks() -> None:
    """Each token's rows leave once, and half of what was within a node stays inside a group."""
    whole, made = predict(_cut(32, 1)), predict(_cut(16, 2))
    assert made.moe.sent.scale_out_sent == pytest.approx(whole.moe.sent.scale_out_sent)
    assert (made.moe.sent.scale_up_sent < whole.moe.sent.scale_up_sent).all()
    assert made.arrived_LR == pytest.approx(2 * whole.arrived_LR)


def test_narrower_products_are_less_efficient() -> None:
    """The same arithmetic in tiles that are not filled: cut over 32, small batches of rows take longer."""
    work = {"phase": "prefill", "tokens_per_gpu": 4096}
    whole, made = (simulate(_cut(*shape, **work)).operation_seconds for shape in ((32, 1), (1, 32)))
    assert made[Operation.EXPERT][0] > 1.05 * np.mean(whole[Operation.EXPERT])


def test_skew_does_not_make_ranks_unlike() -> None:
    skewed = {"routing": {"kind": "log_normal", "sigma": 1.5}}
    seconds = simulate(_cut(1, 16, **skewed)).operation_seconds[Operation.EXPERT]
    assert max(seconds) == min(seconds)


def test_a_recorded_trace_counts_as_its_loads_do() -> None:
    made = _cut(4, 4, tokens_per_gpu=64)
    shape = TraceShape(4096, 4, 64, 4, 16, 16)
    trace = concatenate(list(generate(shape, workload("uniform", shape, 0), 0)))
    loads = tuple(tuple(map(float, row)) for row in expert_load(trace))
    routing = RecordedRouting(trace="t", loads=loads).with_tokens(trace)
    counted = made.model_copy(update={"workload": made.workload.model_copy(update={"routing": routing})})
    assert simulate(counted).step_seconds == pytest.approx(simulate(made).step_seconds, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(1, 2), (1, 8), (1, 16), (2, 8), (8, 2), (2, 16)]),
    st.sampled_from(["decode", "prefill"]),
    st.sampled_from([1, 64, 2048]),
    st.sampled_from(["sequential", "chunks:2", "two-batch"]),
    st.booleans(),
)
def test_times_add_up(shape: tuple[int, int], phase: str, tokens: int, schedule: str, shared: bool) -> None:
    groups, cut = shape
    options = {
        "expert_tensor_parallel": cut,
        "attention_ranks": cut if shared else 1,
        "schedule": schedule,
    }
    made = deployment(ranks=groups, on=cluster(gpus=32), options=options, phase=phase, tokens_per_gpu=tokens)
    report = simulate(made)
    for rank in range(report.ranks):
        spent = sum(seconds[rank] for seconds in report.spent_seconds.values())
        assert spent == pytest.approx(report.step_seconds)


def test_planes_keep_the_links_between_what_is_left() -> None:
    h100 = load_cluster("h100-sxm").with_gpus(32)
    assert (plane_of(h100, 2).nodes, plane_of(h100, 2).gpus_per_node) == (4, 4)
    assert (plane_of(h100, 8).nodes, plane_of(h100, 8).gpus_per_node) == (4, 1)
    assert (plane_of(h100, 16).nodes, plane_of(h100, 16).scale_up_domain_gpus) == (2, 1)
    nvl72 = load_cluster("gb200-nvl72").with_gpus(72)
    assert plane_of(nvl72, 8).scale_up_domain_gpus == 9


def test_ranks_are_gpus_and_experts_follow() -> None:
    made = deployment_of(Description("deepseek-v3", ranks=16, expert_tensor_parallel=2))
    assert (made.layout, made.placement.experts_per_rank, made.cluster.gpus) == ("EP 8 x TP 2", 32, 16)
    assert deployment_of(Description("deepseek-v3", expert_tensor_parallel=8)).layout == "TP 8"
    with pytest.raises(InputError, match="`expert_tensor_parallel` 3 must divide"):
        deployment_of(Description("deepseek-v3", ranks=16, expert_tensor_parallel=3))


def test_a_file_keeps_its_gpus_when_experts_are_cut_otherwise(tmp_path) -> None:
    path = tmp_path / "d.json"
    save_deployment(deployment_of(Description("deepseek-v3", ranks=16)), path)
    made = deployment_of(Description(str(path), expert_tensor_parallel=16, attention_ranks=16))
    assert (made.layout, made.ranks, made.replicated) == ("TP 16", 16, True)
    save_deployment(made, path)
    assert load_deployment(path) == made
    assert (
        deployment_of(Description(str(path), expert_tensor_parallel=1, attention_ranks=1)).layout == "EP 16"
    )


def test_a_plan_asked_for_a_cut_has_no_other_and_says_it_in_its_file(tmp_path) -> None:
    said = Description("deepseek-v3", "h200", expert_tensor_parallel=2, tokens_per_gpu=16)
    plan = make_plan(template_of(said), 16, fixed_batch=True)
    assert {choice.deployment.layout for choice in plan.choices} == {"EP 4 x TP 2", "EP 8 x TP 2"}
    path = tmp_path / "plan.json"
    save_deployment(plan.shown.deployment, path)
    again = make_plan(template_of(Description(str(path))), 16, fixed_batch=True)
    assert again.shown.report == plan.shown.report


def test_placing_refuses_it() -> None:
    with pytest.raises(InputError, match="expert_tensor_parallel 2"):
        objective_of(_cut(8, 2))
