"""A plan for requests: no better arrangement missed, and what it says adds up."""

from __future__ import annotations

import pytest
from benchmarks.plan_exhaustive import exhaustive_service
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.simulate.builders import model
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.simulate.layouts import Kept
from wingspan.simulate.search import with_workload
from wingspan.simulate.service import PhaseGroup, ServiceGoal, frontier, split_offers
from wingspan.simulate.service_plan import ServicePlan, make_service_plan
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.models import load_model
from wingspan.specs.workload import Workload


def _start(cluster: str = "h100-sxm", memory_bytes: float = 0.6e9, **work: object) -> Deployment:
    """A model of five layers on GPUs with so little memory that placing it is a question."""
    on = load_cluster(cluster)
    on = on.model_copy(update={"gpu": on.gpu.model_copy(update={"memory_bytes": memory_bytes})})
    of = model(n_routed_experts=12)
    return Deployment(
        model=of,
        cluster=on,
        workload=Workload.model_validate({"tokens_per_gpu": 64, "context": 512, **work}),
        placement=PlacementSpec(ranks=1, experts_per_rank=of.experts.count),
    )


def _plan(
    goal: ServiceGoal, gpus: int = 4, cluster: str = "gb200-nvl72", kept: Kept | None = None
) -> ServicePlan:
    return make_service_plan(_start(cluster), gpus, goal, kept or Kept())


@pytest.mark.parametrize(
    ("cluster", "gpus", "attention", "goal"),
    [
        ("h100-sxm", 2, (1, 2), ServiceGoal(400, 100, 0.05, 0.004)),
        ("gb200-nvl72", 2, (1, 2), ServiceGoal(200, 50, 0.02, 0.003)),
        ("h100-sxm", 8, (1,), ServiceGoal(400, 100, 0.05, 0.004)),
    ],
)
def test_no_arrangement_that_keeps_the_limits_is_better(
    cluster: str, gpus: int, attention: tuple[int, ...], goal: ServiceGoal
) -> None:
    start = _start(cluster)
    best = make_service_plan(start, gpus, goal, Kept()).best
    others = list(exhaustive_service(start, gpus, goal, most_slots=1, attention=attention))
    assert others
    assert best is not None
    assert best.meets
    most = max(others, key=lambda offer: offer.order)
    # Loads are drawn anew for each batch, so rates jump by some permille between neighbours.
    assert best.tokens_per_second_per_gpu >= 0.99 * most.tokens_per_second_per_gpu, (best, most)


def test_every_arrangement_has_a_figure_or_a_reason() -> None:
    goal = ServiceGoal(400, 100, 0.05, 0.004)
    plan = _plan(goal)
    assert plan.best is not None
    for one in plan.considered:
        assert one.offer is not None or one.cause in ("memory", "TPOT", "TTFT", "room")
        if one.offer is not None and one.offer is not plan.best:
            assert one.offer.tokens_per_second_per_gpu <= plan.best.tokens_per_second_per_gpu
            assert one.reason
    speeds = [offer.tokens_per_second_per_user for offer in plan.frontier]
    rates = [offer.tokens_per_second_per_gpu for offer in plan.frontier]
    assert speeds == sorted(speeds, reverse=True)
    assert rates == sorted(rates)
    better = [
        offer
        for offer in plan.frontier
        if offer.meets and offer.tokens_per_second_per_gpu > plan.best.tokens_per_second_per_gpu * 1.01
    ]
    assert not better


def test_limits_that_nothing_keeps_say_by_how_much() -> None:
    plan = _plan(ServiceGoal(400, 100, None, 1e-6))
    assert plan.best is None
    assert {one.cause for one in plan.considered if one.kind == "together"} <= {"TPOT", "memory"}
    assert any("TPOT" in one.reason for one in plan.considered)
    plan = _plan(ServiceGoal(400, 100, 1e-5, None))
    assert plan.best is None
    assert any("TTFT" in one.reason for one in plan.considered)


def test_redundant_slots_and_placements_are_kept() -> None:
    goal = ServiceGoal(200, 50)
    with_replicas = _plan(goal, kept=Kept(redundant=12))
    assert with_replicas.best is not None
    decode = with_replicas.best.decode
    assert decode.redundant == 12
    assert decode.deployment.placement.strategy is Strategy.BALANCED
    fixed = Kept(placement=PlacementSpec(strategy=Strategy.ROUND_ROBIN, ranks=1))
    placed = _plan(goal, kept=fixed).best
    assert placed is not None
    assert placed.decode.deployment.placement.strategy is Strategy.ROUND_ROBIN
    slots = _plan(goal, kept=Kept(experts_per_rank=12)).best
    assert slots is not None
    assert slots.decode.deployment.placement.experts_per_rank == 12
    with pytest.raises(
        InputError, match="`redundant` 7: 12 \\+ 7 slots divide over none of the EP sizes 2, 4"
    ):
        Kept(redundant=7).check(12, [2, 4])


def test_a_request_without_a_decode_step_is_refused() -> None:
    with pytest.raises(InputError, match="`output_tokens` 1"):
        ServiceGoal(100, 1)
    start = _start()
    short = start.model_copy(update={"model": start.model.model_copy(update={"max_context": 600})})
    with pytest.raises(InputError, match="longer than the"):
        make_service_plan(short, 8, ServiceGoal(500, 200), Kept())


@settings(deadline=None, max_examples=25)
@given(
    some.integers(1, 6), some.integers(1, 6), some.floats(0.1, 10), some.floats(0.1, 10), some.integers(2, 24)
)
def test_the_best_ratio_is_the_best_of_all_counts(
    prefill_ranks: int, decode_ranks: int, prefill_rate: float, decode_rate: float, gpus: int
) -> None:
    """Beside every pair of counts that has room, tried one by one."""
    start, goal = _start(), ServiceGoal(100, 50)

    def group(ranks: int, rate: float) -> PhaseGroup:
        spec = PlacementSpec(ranks=ranks, experts_per_rank=12)
        return PhaseGroup(start.model_copy(update={"placement": spec}), 0.01, rate, 1.0)

    offers = split_offers(goal, gpus, group(prefill_ranks, prefill_rate), group(decode_ranks, decode_rate))
    pairs = [
        min(p * prefill_rate, d * decode_rate)
        for p in range(1, gpus + 1)
        for d in range(1, gpus + 1)
        if p * prefill_ranks + d * decode_ranks <= gpus
    ]
    assert bool(offers) == bool(pairs)
    if pairs:
        assert max(offer.requests_per_second for offer in offers) == pytest.approx(max(pairs))
        assert all(offer.used_gpus <= gpus for offer in offers)
    best = frontier(offers)
    assert all(
        any(
            b.tokens_per_second_per_gpu >= o.tokens_per_second_per_gpu
            and b.tokens_per_second_per_user >= o.tokens_per_second_per_user
            for b in best
        )
        for o in offers
    )


def test_where_one_sequence_on_each_gpu_is_too_slow_fewer_share_the_group() -> None:
    """As many in all as keep the limit, each predicted whole; one more does not."""
    start = Deployment(
        model=load_model("qwen3-235b-a22b"),
        cluster=load_cluster("h100-sxm"),
        workload=Workload.model_validate({"tokens_per_gpu": 64, "context": 2048}),
        placement=PlacementSpec(ranks=1, experts_per_rank=128),
    )
    best = make_service_plan(start, 16, ServiceGoal(400, 100, None, 0.024), Kept()).best
    assert best is not None
    assert best.meets
    group = best.decode
    assert group.total_sequences is not None
    assert 1 < group.total_sequences < group.ranks
    assert group.deployment.tokens == group.total_sequences
    steps = [
        simulate(with_workload(group.deployment, total_sequences=group.total_sequences + more)).step_seconds
        for more in (0, 2)
    ]
    assert steps[0] == group.step_seconds
    limit = 0.024 - group.transfer_seconds / 99
    assert steps[0] <= limit < steps[1]
