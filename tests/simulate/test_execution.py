"""The choice of schedule and dispatcher is the fastest prediction, and the plain way where nothing is gained."""

from __future__ import annotations

from wingspan.deployment import Deployment
from wingspan.placement.spec import PlacementSpec
from wingspan.simulate.execution import best_execution, candidates, pick
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, Workload

BOTH = [DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL]


def step(tokens: int, phase: str = "prefill", cluster: str = "h100-sxm") -> Deployment:
    return Deployment(
        model=load_model("seed"),
        cluster=load_cluster(cluster).with_gpus(64),
        workload=Workload(
            phase=phase, tokens_per_gpu=tokens, context=Context(mean_tokens=1024), fluctuating=False
        ),
        placement=PlacementSpec(ranks=64),
    )


def test_candidates_come_fastest_first_and_are_what_the_simulator_says():
    deployment = step(4096)
    found = candidates(deployment, BOTH)
    assert [c.seconds for c in found] == sorted(c.seconds for c in found)
    best = found[0]
    options = {"schedule": best.schedule, "dispatcher": best.dispatcher}
    chosen = deployment.model_copy(update={"options": deployment.options.model_copy(update=options)})
    assert simulate(chosen).step_seconds == best.seconds


def test_overlap_pays_for_large_batches_on_a_slow_network_and_not_for_single_tokens():
    assert pick(candidates(step(4096), [DispatcherKind.HIERARCHICAL])).schedule != "sequential"
    assert pick(candidates(step(1, "decode"), [DispatcherKind.FLAT])).schedule == "sequential"


def test_a_gain_of_less_than_three_in_a_hundred_keeps_the_plain_order():
    ways = candidates(step(1, "decode", "seed-ideal"), [DispatcherKind.FLAT])
    assert ways[0].seconds > 0.97 * next(way.seconds for way in ways if way.schedule == "sequential")
    assert pick(ways).schedule == "sequential"


def test_one_sequence_is_never_cut_in_two_batches():
    names = {c.schedule for c in candidates(step(1, "decode"), BOTH)}
    assert "two-batch" not in names


def test_one_dispatcher_serves_all_phases_weighted_by_their_steps():
    phases = {"prefill": (step(4096), 1), "decode": (step(16, "decode"), 1000)}
    found = best_execution(phases, BOTH)
    dispatchers = {c.dispatcher for ways in found.values() for c in ways}
    assert len(dispatchers) == 1
    alone = best_execution({"decode": (step(16, "decode"), 1)}, BOTH)
    assert dispatchers == {alone["decode"][0].dispatcher}
