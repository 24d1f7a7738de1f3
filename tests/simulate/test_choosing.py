"""Memory limits, ways out of them, and the search over EP sizes."""

from tests.simulate.builders import cluster, deployment
from wingspan.deployment import Deployment, Options
from wingspan.describe import Description, template_of
from wingspan.placement.spec import PlacementSpec
from wingspan.simulate.knee import ENOUGH
from wingspan.simulate.memory import largest_batch, longest_context, memory_use
from wingspan.simulate.planning import make_plan
from wingspan.simulate.search import best_of_each_ep
from wingspan.simulate.step import simulate
from wingspan.simulate.ways_out import ways_out
from wingspan.specs.models import load_model
from wingspan.specs.workload import Workload


def _seed(tokens: int, context: int, reserve: float = 0.05) -> Deployment:
    return Deployment(
        model=load_model("seed"),
        cluster=cluster("seed-ideal"),
        workload=Workload.model_validate({"tokens_per_gpu": tokens, "context": context}),
        placement=PlacementSpec(ranks=64),
        options=Options(reserve_share=reserve),
    )


def test_largest_batch_is_the_last_that_fits() -> None:
    made = deployment(context=4096)
    batch = largest_batch(made)
    fits = {
        n: memory_use(
            made.model_copy(update={"workload": made.workload.model_copy(update={"tokens_per_gpu": n})})
        ).fits
        for n in (batch, batch + 1)
    }
    assert fits == {batch: True, batch + 1: False}
    assert largest_batch(made, 8192) < batch


def test_longest_context_is_the_last_that_fits() -> None:
    made = deployment(tokens_per_gpu=64)
    longest = longest_context(made)
    assert largest_batch(made, longest) >= 64
    assert largest_batch(made, longest + 64) < 64


def test_the_seed_has_room_for_under_800_tokens() -> None:
    bare = _seed(1, 1, reserve=0.0)
    assert 400 < longest_context(bare) < 800


def test_the_seed_overflows_with_its_cache_and_attention_is_the_way_out() -> None:
    made = _seed(1, 1024)
    use = memory_use(made)
    assert use.breaking_part in ("kv cache", "other")
    ways = ways_out(made)
    assert ways[0].text.startswith("shard attention over 2 GPUs")
    assert ways[0].cost == 0
    assert all(memory_use(way.deployment).fits for way in ways)
    assert len(ways) == 3


def test_a_bit_too_large_a_batch_has_cheap_ways_out() -> None:
    made = deployment(context=4096)
    batch = largest_batch(made)
    over = made.model_copy(
        update={"workload": made.workload.model_copy(update={"tokens_per_gpu": batch + 100})}
    )
    ways = ways_out(over)
    assert {way.kind for way in ways} >= {"precision", "work"}
    smaller = next(way for way in ways if f"{batch} sequences" in way.text)
    assert smaller.deployment.workload.tokens_per_gpu == batch


def test_what_fits_needs_no_way_out() -> None:
    assert ways_out(deployment()) == []


def test_search_returns_what_fits_and_what_it_says() -> None:
    template = deployment(context=2048)
    choices = best_of_each_ep(template, 16, fixed_batch=True)
    layouts = [choice.deployment.layout for choice in choices]
    assert layouts == ["EP 1", "EP 2", "TP 2", "EP 4", "TP 4", "EP 8", "TP 8", "EP 16", "TP 16"]
    for choice in choices:
        assert choice.deployment.workload.tokens_per_gpu == 64
        assert memory_use(choice.deployment).fits
        assert simulate(choice.deployment) == choice.report
    limit = min(choice.report.step_seconds for choice in choices) * 1.0001
    within = best_of_each_ep(template, 16, fixed_batch=True, longest_step_seconds=limit)
    assert within
    assert all(choice.report.step_seconds <= limit for choice in within)


def test_a_plan_where_nothing_fits_says_why() -> None:
    plan = make_plan(_seed(16, 1024), 64, fixed_batch=True)
    # Attention over several GPUs alone does not make room for 16 x 1024 tokens of 4 MB each.
    assert plan.choices == []
    assert plan.breaking_part == "kv cache"
    assert plan.ways


def test_a_plan_shows_the_fastest() -> None:
    plan = make_plan(deployment(context=2048), 16, fixed_batch=False)
    assert plan.shown.tokens_per_second_per_gpu == max(c.tokens_per_second_per_gpu for c in plan.choices)
    assert plan.breaking_part is None
    assert list(plan.batches.values()) == sorted(plan.batches.values(), reverse=True)


def _prefill(context: int) -> Deployment:
    return template_of(Description("mixtral-8x7b", phase="prefill", context=context))


def test_a_prefill_step_is_no_longer_than_its_tokens_are_worth() -> None:
    plan = make_plan(_prefill(4096), 4, fixed_batch=False)
    most = plan.sizes[0]
    rates = {c.deployment.workload.tokens_per_gpu: c.tokens_per_second_per_gpu for c in plan.sizes}
    chosen = plan.shown.deployment.workload.tokens_per_gpu
    assert chosen == min(batch for batch, rate in rates.items() if rate >= ENOUGH * max(rates.values()))
    assert plan.shown.report.step_seconds < 0.6 * most.report.step_seconds
    assert simulate(plan.shown.deployment) == plan.shown.report
    assert plan.shown in plan.choices
    asked = make_plan(_prefill(4096), 4, fixed_batch=False, longest_step_seconds=10.0)
    assert asked.sizes == []
    assert asked.shown.deployment.workload.tokens_per_gpu > chosen


def test_a_prefill_step_holds_a_whole_prompt() -> None:
    """Where memory has no room for one, nothing fits: a step of a part of it would be no answer."""
    fits = make_plan(_prefill(4096), 2, fixed_batch=False)
    work = fits.shown.deployment.workload
    assert work.tokens_per_gpu >= 4096
    held = max(c.peak_bytes for c in fits.sizes)
    start = _prefill(32768)
    gpu = start.cluster.gpu.model_copy(update={"memory_bytes": 0.9 * held})
    small = start.model_copy(update={"cluster": start.cluster.model_copy(update={"gpu": gpu})})
    plan = make_plan(small, 2, fixed_batch=False)
    assert plan.choices == []
    assert plan.shown.deployment.workload.tokens_per_gpu == 32768
