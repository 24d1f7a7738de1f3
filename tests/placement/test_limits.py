"""What is said about a placement's limits: memory, floors, and advice in words."""

from __future__ import annotations

import numpy as np
import pytest

from tests.placement.examples import topology, trace
from wingspan.errors import InputError
from wingspan.placement.compare import Comparison, compare
from wingspan.placement.limits import WITH_REQUESTS, check_memory, limits
from wingspan.placement.placement import Placement
from wingspan.placement.plan import Moving
from wingspan.placement.simple import linear
from wingspan.routing.synthetic import TraceShape


def compared(
    kind: str, ranks: int = 32, slots: int = 1, seconds_per_token: float = 1e-4, **more
) -> Comparison:
    shape = TraceShape(4000, 2, 32, 4, 32, request_tokens=4)
    cluster = topology(ranks, 4, seconds_per_token=seconds_per_token)
    return compare(trace(kind, shape), cluster, slots, **more)


def test_memory_names_the_slots_that_fit():
    check_memory(58, 1, 88_080_384, 6e9)
    with pytest.raises(
        InputError, match=r"58 layers x 9 slots x 88.08 MB = 45.98 GB .* use --slots-per-rank 3"
    ):
        check_memory(58, 9, 88_080_384, 16e9)
    with pytest.raises(InputError, match="one slot per layer needs more memory"):
        check_memory(58, 1, 88_080_384, 1e9)


def test_floors_by_hand():
    found = limits(np.array([[6.0, 1, 1, 0]]), topology(4, 4), 1)
    assert found.hottest_expert == found.floor == 3.0
    # Four spare ranks: the hottest shares 5 of 8 slots, so 1.2 against a mean of 1.
    assert (found.spare_ranks, found.floor_with_spare) == (4, 1.2)
    assert found.floor_with_two < found.floor


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
    shape = TraceShape(2000, 2, 32, 4, 32, request_tokens=4)
    cluster = topology(32, 4, seconds_per_token=1e-9, seconds_per_expert=1e-5)
    assert "reading the mean expert's weights takes" in " ".join(
        compare(trace("log-normal", shape), cluster, 1).advice
    )


def test_one_node_has_no_network_to_win():
    shape = TraceShape(400, 1, 8, 2, 8, request_tokens=4)
    assert "nothing crosses nodes" in " ".join(compare(trace("uniform", shape), topology(8, 8), 1).advice)


def test_communities_gain_and_requests_gain_more():
    result = compared("communities", seconds_per_token=1e-7, request_routing=True)
    plain, ours, routed = (
        result.scores[n].across_deduplicated_bytes for n in ("linear", "ours", WITH_REQUESTS)
    )
    assert routed < 0.7 * ours
    assert ours < 0.6 * plain
    assert "fewer bytes cross nodes than under linear" in " ".join(result.advice)
    assert "Request routing on top of ours" in result.advice[-1]


def test_all_strategies_are_there_and_the_present_comes_first():
    first = compared("log-normal", slots=2, groups=8)
    assert list(first.placements) == [
        "linear", "round-robin", "random", "eplb", "eplb-hierarchical", "balanced", "ours",
    ]  # fmt: skip
    second = compared("log-normal", slots=2, present=first.placements["ours"])
    assert next(iter(second.scores)) == "present"
    assert second.scores["present"].experts_moved == second.scores["ours"].experts_moved == 0
    assert second.advice[0].startswith("Ours stays")
    assert second.scores["linear"].experts_moved > 0
    assert second.planned_tokens + second.scored_tokens == 4000


def test_a_horizon_too_short_is_told_what_moving_would_give():
    present = linear(2, 32, 32)
    near, far = (
        compared("communities", seconds_per_token=1e-7, present=present, moving=Moving(steps=steps))
        for steps in (1, 10**6)
    )
    assert near.placements["ours"] == present
    assert "no move pays for itself within the horizon. Anew it would be" in near.advice[0]
    assert far.advice[0].startswith(f"Ours moves {far.scores['ours'].experts_moved} experts")
    assert far.scores["ours"].step_seconds < 0.8 * near.scores["ours"].step_seconds


def test_a_trace_too_short_is_named():
    shape = TraceShape(3, 1, 8, 2, 8)
    with pytest.raises(InputError, match="3 tokens; planning and scoring need at least 4"):
        compare(trace("uniform", shape), topology(8, 4), 1)


def test_the_placements_of_a_one_step_trace_are_whole():
    result = compare(trace("uniform", TraceShape(8, 1, 8, 2, 8, request_tokens=64)), topology(8, 4), 1)
    assert all(isinstance(p, Placement) for p in result.placements.values())
