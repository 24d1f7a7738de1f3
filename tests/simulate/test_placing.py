"""Strategies side by side by their predicted step, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.placement.examples import trace
from tests.simulate.builders import CONFIG, cluster
from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.placement.plan import Moving
from wingspan.placement.simple import linear
from wingspan.placement.spec import PlacementSpec
from wingspan.routing.homes import spread_requests
from wingspan.routing.statistics import expert_load
from wingspan.routing.synthetic import TraceShape
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import read_trace
from wingspan.simulate.placement_advice import ANEW, WITH_REQUESTS
from wingspan.simulate.placing import Comparison, compare
from wingspan.simulate.step import simulate
from wingspan.specs.families import model_from_config
from wingspan.specs.models import load_model
from wingspan.specs.placement import Placement
from wingspan.specs.workload import RecordedRouting, Workload
from wingspan.traffic.counted import count_traffic


def deployment(
    ranks: int,
    slots: int = 1,
    per_node: int = 4,
    tokens: int = 64,
    experts: int = 32,
    layers: int = 2,
    top_k: int = 4,
    hidden: int = 1024,
    **options: Any,
) -> Deployment:
    config = CONFIG | {
        "n_routed_experts": experts, "num_hidden_layers": layers, "first_k_dense_replace": 0,
        "num_experts_per_tok": top_k, "hidden_size": hidden,
    }  # fmt: skip
    nodes = ranks // per_node
    return Deployment(
        model=model_from_config(config, "test model"),
        cluster=cluster().with_nodes(nodes, per_node),
        workload=Workload.model_validate({"tokens_per_gpu": tokens, "context": 512}),
        placement=PlacementSpec(ranks=ranks, experts_per_rank=slots),
        options=Options.model_validate({"dispatcher": "hierarchical", **options}),
    )


def compared(
    kind: str, ranks: int = 32, slots: int = 1, tokens: int = 64, hidden: int = 1024, **more
) -> Comparison:
    shape = TraceShape(4000, 2, 32, 4, 32, request_tokens=4)
    drawn = trace(kind, shape)
    drawn = drawn if ranks == 32 else spread_requests(drawn, ranks)
    return compare(deployment(ranks, slots, tokens=tokens, hidden=hidden), drawn, **more)


def test_uniform_traffic_is_told_that_nothing_helps():
    said = " ".join(compared("uniform").advice)
    assert "No placement helps here" in said
    assert "no placement lowers what crosses nodes" in said


def test_one_hot_expert_at_one_slot_is_told_what_would_help():
    result = compared("hot-rank")
    said = " ".join(result.advice)
    assert "No placement helps here" in said
    assert "at one slot per rank no placement brings the fullest rank below" in said
    assert "4 more spare ranks" in said
    assert "two slots per rank" in said
    assert result.scores["ours"].imbalance == result.scores["linear"].imbalance


def test_spare_ranks_do_help_it():
    result = compared("hot-rank", ranks=36)
    assert result.scores["ours"].imbalance < 0.4 * result.scores["linear"].imbalance
    assert "faster than linear" in result.advice[0]


def test_small_batches_are_told_that_reading_decides():
    assert "reading the mean expert's weights takes" in " ".join(compared("log-normal", tokens=1).advice)


def test_one_node_has_no_network_to_win():
    drawn = trace("uniform", TraceShape(400, 1, 8, 2, 8, request_tokens=4))
    alone = deployment(8, per_node=8, experts=8, layers=1, top_k=2)
    assert "nothing crosses nodes" in " ".join(compare(alone, drawn).advice)


def test_communities_gain_and_requests_gain_more():
    result = compared("communities", request_routing=True)
    plain, ours, routed = (result.scores[n].across_bytes for n in ("linear", "ours", WITH_REQUESTS))
    assert routed < 0.7 * ours
    assert ours < 0.6 * plain
    assert "fewer bytes cross nodes than under linear" in " ".join(result.advice)
    assert "Request routing on top of ours" in result.advice[-1]


def test_all_strategies_are_there_and_the_present_comes_first():
    first = compared("log-normal", slots=2)
    assert list(first.placements) == [
        "linear", "round-robin", "random", "eplb", "balanced", "ours",
    ]  # fmt: skip
    second = compared("log-normal", slots=2, present=first.placements["ours"])
    assert next(iter(second.scores)) == "present"
    assert second.scores["present"].experts_moved == second.scores["ours"].experts_moved == 0
    assert second.advice[0].startswith("Ours stays")
    assert second.scores["linear"].experts_moved > 0
    assert (second.planned_tokens, second.trace_tokens) == (2048, 4000)


def test_a_horizon_too_short_is_told_what_moving_would_give():
    present = linear(2, 32, 32)
    near, far = (
        compared("communities", tokens=2048, present=present, moving=Moving(steps=steps))
        for steps in (1, 10**6)
    )
    assert near.placements["ours"] == present
    assert "no move pays for itself within the horizon. Anew it would be" in near.advice[0]
    assert far.advice[0].startswith(f"Ours moves {far.scores['ours'].experts_moved} experts")
    assert far.scores["ours"].step_seconds < near.scores["ours"].step_seconds


def test_a_trace_too_short_is_named():
    drawn = trace("uniform", TraceShape(3, 1, 8, 2, 8))
    with pytest.raises(InputError, match="3 tokens; planning and scoring need at least 4"):
        compare(deployment(8, experts=8, layers=1, top_k=2), drawn)


def test_the_placements_of_a_one_step_trace_are_whole():
    drawn = trace("uniform", TraceShape(8, 1, 8, 2, 8, request_tokens=64))
    result = compare(deployment(8, experts=8, layers=1, top_k=2), drawn)
    assert all(isinstance(p, Placement) for p in result.placements.values())


TINY = Path(__file__).parents[2] / "models" / "tiny"


@pytest.mark.parametrize("kind", ["communities", "source-affine", "log-normal", "recorded"])
@pytest.mark.parametrize("dispatcher", ["flat", "deduplicated", "hierarchical"])
@pytest.mark.parametrize(("ranks", "slots"), [(32, 1), (36, 1), (16, 3)])
def test_place_and_simulate_print_the_same_and_it_is_the_exact_count(
    kind: str, dispatcher: str, ranks: int, slots: int
) -> None:
    """Of drawn traces and of the shipped model's recorded one; without and with replicas."""
    if kind == "recorded":
        drawn = read_trace(TINY / "routing.parquet").take(slice(0, 3000))
        asked = deployment(ranks, slots, dispatcher=dispatcher)
        asked = asked.model_copy(update={"model": load_model(str(TINY))})
    else:
        drawn = trace(kind, TraceShape(3000, 2, 32, 4, 32, request_tokens=4))
        asked = deployment(ranks, slots, dispatcher=dispatcher)
    drawn = spread_requests(drawn, ranks)
    result = compare(asked, drawn)
    for name in ("linear", "balanced", "ours"):
        placement, said = result.placements[name], result.scores[name]
        report = simulate(_with(asked, placement, drawn))
        assert said.across_bytes == pytest.approx(sum(report.sent_across_nodes_bytes), rel=1e-4)
        assert said.within_bytes == pytest.approx(sum(report.sent_within_node_bytes), rel=1e-4)
        assert said.step_seconds == pytest.approx(report.step_seconds)
        rows = count_traffic(placement, drawn, asked.used_cluster, asked.dispatcher).links
        row_bytes = asked.model.hidden * (2 + 2)  # BF16, out and back
        exact = rows.scale_out_sent.sum() * row_bytes * asked.tokens / drawn.num_tokens
        assert said.across_bytes == pytest.approx(exact, rel=1e-4)
    others = [score.step_seconds for name, score in result.scores.items() if name != ANEW]
    assert result.scores["ours"].step_seconds <= min(others) * (1 + 1e-9)


def _with(asked: Deployment, placement: Placement, drawn: RoutingTrace) -> Deployment:
    loads = tuple(tuple(row) for row in expert_load(drawn).tolist())
    routing = RecordedRouting(trace="drawn", loads=loads).with_tokens(drawn)
    workload = asked.workload.model_copy(update={"routing": routing, "fluctuating": False})
    return asked.model_copy(update={"workload": workload, "placement": PlacementSpec.explicit(placement)})
