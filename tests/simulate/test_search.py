"""The search of `plan`: never worse than trying everything, and what it says is what `simulate` says."""

import time
from pathlib import Path

import pytest
from benchmarks.plan_exhaustive import exhaustive, template

from tests.simulate.builders import model
from wingspan.deployment import Deployment
from wingspan.placement.spec import PlacementSpec
from wingspan.simulate.memory import memory_use
from wingspan.simulate.search import best_of_each_ep
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.workload import Workload

_CASES = Path(__file__).parent / "cases"
_H20, _QWEN = str(_CASES / "h20.yaml"), str(_CASES / "qwen1.5-moe-a2.7b.config.json")


def _small(
    cluster: str, memory_bytes: float, experts: int = 12, **changes: object
) -> tuple[Deployment, Cluster]:
    """A model of five layers on GPUs with so little memory that placing it is a question."""
    on = load_cluster(cluster)
    gpu = on.gpu.model_copy(update={"memory_bytes": memory_bytes})
    on = on.model_copy(update={"gpu": gpu, **changes})
    of = model(n_routed_experts=experts)
    return Deployment(
        model=of,
        cluster=on,
        workload=Workload.model_validate({"tokens_per_gpu": 64, "context": 2048}),
        placement=PlacementSpec(ranks=1, experts_per_rank=of.experts.count),
    ), on


@pytest.mark.parametrize(
    ("cluster", "gpus", "changes", "work"),
    [
        ("h100-sxm", 16, {}, {"routing": {"kind": "log_normal", "sigma": 0.8}}),
        ("gb200-nvl72", 12, {}, {}),
        ("h100-sxm", 12, {"gpus_per_node": 6, "scale_up_domain_gpus": 6}, {"phase": "prefill"}),
        ("h100-sxm", 4, {"scale_up_domain_gpus": 2}, {}),
        ("h100-sxm", 3, {}, {}),
    ],
)
def test_no_way_that_simulate_knows_is_faster(
    cluster: str, gpus: int, changes: dict[str, int], work: dict[str, object]
) -> None:
    start, _ = _small(cluster, 0.6e9, **changes)
    workload = Workload.model_validate(start.workload.model_dump() | work)
    start = start.model_copy(update={"workload": workload})
    found = best_of_each_ep(start, gpus, fixed_batch=False)
    all_ways = list(exhaustive(start, gpus, parts=(1.0,), most_slots=2))
    best, where = max(all_ways, key=lambda pair: pair[0])
    assert max(c.tokens_per_second_per_gpu for c in found) >= best * (1 - 1e-9), where
    assert {c.report.ranks for c in found} == {deployment.ranks for _, deployment in all_ways}


@pytest.mark.parametrize(
    ("of", "on", "context", "gpus", "least"),
    [
        ("deepseek-v3", "h100-sxm", 2050, 72, {72: 3001}),
        ("deepseek-v3", "gb200-nvl72", 4096, 36, {36: 6820}),
        ("deepseek-v3", "gb200-nvl72", 4096, 72, {72: 6840, 36: 6820}),
        ("deepseek-v3", "h100-sxm", 4096, 96, {96: 2195}),
        ("deepseek-v3", "h200", 4096, 72, {72: 1, 24: 1}),
        ("deepseek-v3", "h100-sxm", 4096, 320, {320: 2000}),
        ("deepseek-v3", _H20, 4096, 16, {16: 500}),
        (_QWEN, "h100-sxm", 4096, 4, {4: 1}),
        (_QWEN, "h100-sxm", 4096, 8, {8: 1}),
    ],
)
def test_deployments_that_people_run_are_found_in_time(
    of: str, on: str, context: int, gpus: int, least: dict[int, float]
) -> None:
    """Rates per GPU that `simulate` gave for hand-made placements; CPU seconds, for a busy machine."""
    before = time.process_time()
    found = {c.report.ranks: c for c in best_of_each_ep(template(of, on, context), gpus, fixed_batch=False)}
    assert time.process_time() - before < 3
    for ranks, rate in least.items():
        choice = found[ranks]
        assert choice.tokens_per_second_per_gpu >= rate
        assert memory_use(choice.deployment).fits
    best = max(found.values(), key=lambda c: c.tokens_per_second_per_gpu)
    assert Deployment.model_validate_json(best.deployment.model_dump_json()) == best.deployment
    assert simulate(best.deployment) == best.report


def test_skewed_loads_get_redundant_slots_that_fit() -> None:
    start, on = _small("h100-sxm", 0.6e9, experts=16)
    routing = {"routing": {"kind": "log_normal", "sigma": 1.2}}
    start = start.model_copy(
        update={"workload": Workload.model_validate(start.workload.model_dump() | routing)}
    )
    by_ep = {c.report.ranks: c for c in best_of_each_ep(start, 16, fixed_batch=False)}
    assert by_ep[16].report.experts_per_rank > 1
    assert all(c.peak_bytes <= on.gpu.memory_bytes for c in by_ep.values())


def test_attention_is_sharded_where_it_does_not_fit_otherwise() -> None:
    found = best_of_each_ep(template("seed", "seed-ideal", 1024), 64, fixed_batch=False)
    assert 64 in {c.report.ranks for c in found}
    assert all(c.deployment.options.attention_ranks > 1 for c in found)


def test_a_limit_on_the_step_is_used_up() -> None:
    start, _ = _small("h100-sxm", 2e9)
    free = max(best_of_each_ep(start, 16, fixed_batch=False), key=lambda c: c.tokens_per_second_per_gpu)
    limit = free.report.step_seconds / 2
    found = best_of_each_ep(start, 16, fixed_batch=False, longest_step_seconds=limit)
    best = max(found, key=lambda c: c.tokens_per_second_per_gpu)
    assert best.report.step_seconds <= limit
    more = best.deployment.workload.model_copy(
        update={"tokens_per_gpu": best.deployment.workload.tokens_per_gpu + 1}
    )
    assert simulate(best.deployment.model_copy(update={"workload": more})).step_seconds > limit
