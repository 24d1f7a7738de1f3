"""Invariants of the serving simulation: nothing lost, no time travel, Little's law, KV capacity."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.serving.steps import LinearTimes, grid_times, group
from wingspan.errors import InputError
from wingspan.schedule.serving_result import ServingLimits
from wingspan.simulate.serving.engine import Fleet, KVTransfer, Served, serve
from wingspan.simulate.serving.measure import measure
from wingspan.specs.requests import Requests, poisson_requests

TRANSFER = KVTransfer(bytes_per_token=1000.0, bytes_per_second=1e6, latency_seconds=0.001)


def requests(*rows: tuple[float, int, int]) -> Requests:
    arrivals, prompts, outputs = zip(*rows, strict=True)
    return Requests(np.array(arrivals, dtype=float), np.array(prompts), np.array(outputs))


def separate(**options: int) -> Fleet:
    return Fleet(group(name="prefill", **options), group(name="decode", **options), TRANSFER)


def check_invariants(served: Served) -> None:
    given_, first, finish = served.requests, served.first_token_seconds_N, served.finish_seconds_N
    assert np.isfinite(finish).all()
    assert (served.admitted_seconds_N >= given_.arrival_seconds_N).all()
    assert (first > served.admitted_seconds_N).all()
    assert (finish[given_.output_tokens_N > 1] > first[given_.output_tokens_N > 1]).all()
    assert (finish[given_.output_tokens_N == 1] == first[given_.output_tokens_N == 1]).all()
    # Little's law over the whole run: requests in the system, counted as time went by, against latencies.
    assert served.whole.request_seconds == pytest.approx(
        float((finish - given_.arrival_seconds_N).sum()), rel=1e-9
    )
    for state in served.groups:
        assert state.peak_kv_tokens <= state.spec.kv_tokens_per_home
        assert not state.waiting
    # The first group serves every request; a separate decode group only those with more than one token.
    assert served.groups[0].peak_kv_tokens > 0
    assert (served.groups[-1].peak_kv_tokens > 0) == bool(
        len(served.groups) == 1 or (given_.output_tokens_N > 1).any()
    )
    # Every output token but the first of each request comes from one decode step of one sequence, or, where it was put
    # back, from its replay.
    last = served.groups[-1]
    assert (
        last.rows.decoded_tokens + last.preemptions
        >= int((given_.output_tokens_N - 1).sum())
        >= last.rows.decoded_tokens
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 900), st.integers(1, 90)), min_size=1, max_size=40
    ),
    homes=st.integers(1, 5),
    sequences=st.integers(1, 20),
    apart=st.booleans(),
    context=st.sampled_from([0.0, 1e-6]),
    coming=st.sampled_from([0.0, 3e-3]),
)
def test_every_request_finishes_once_in_order_of_time_within_the_kv_cache(
    rows: list[tuple[float, int, int]],
    homes: int,
    sequences: int,
    apart: bool,
    context: float,
    coming: float,
) -> None:
    times = LinearTimes(context=context)
    one = group(times, homes=homes, kv_tokens=1000, sequences=sequences, budget=64)
    fleet = Fleet(one, one, TRANSFER) if apart else Fleet(one)
    check_invariants(serve(requests(*sorted(rows)), replace(fleet, request_seconds=coming)))


def test_one_request_alone_takes_the_sum_of_its_steps() -> None:
    """300 prompt tokens in chunks of 256 and 44, then 4 decode steps of one sequence."""
    served = serve(requests((1.0, 300, 5)), Fleet(group(LinearTimes(fixed=0.01, token=0.001))))
    chunks = (0.01 + 0.256) + (0.01 + 0.044)
    assert served.first_token_seconds_N[0] == pytest.approx(1.0 + chunks)
    assert served.finish_seconds_N[0] == pytest.approx(1.0 + chunks + 4 * (0.01 + 0.001))


def test_each_step_is_charged_its_own_context() -> None:
    """Prompt 2: pairs attended 1 + 2, mean 1.5; then contexts 3, 4 and 5."""
    times = LinearTimes(fixed=0.0, token=0.0, context=1.0)
    served = serve(requests((0.0, 2, 4)), Fleet(group(times)))
    assert served.first_token_seconds_N[0] == pytest.approx(2 * 1.5)
    assert served.finish_seconds_N[0] == pytest.approx(3.0 + 3 + 4 + 5)


def test_a_separate_decode_group_adds_the_transfer() -> None:
    served = serve(requests((0.0, 100, 3)), separate())
    first = 0.01 + 0.1
    assert served.first_token_seconds_N[0] == pytest.approx(first)
    assert served.finish_seconds_N[0] == pytest.approx(first + 0.001 + 0.1 + 2 * 0.011)


def test_a_home_sends_one_kv_cache_at_a_time() -> None:
    """Two prompts on one home finish together; the second cache leaves after the first."""
    served = serve(requests((0.0, 100, 2), (0.0, 100, 2)), separate(homes=1))
    first = 0.01 + 0.2
    assert served.first_token_seconds_N.tolist() == pytest.approx([first, first])
    assert served.finish_seconds_N[0] == pytest.approx(first + 0.101 + 0.011)
    assert served.finish_seconds_N[1] == pytest.approx(first + 0.202 + 0.011)


def test_a_chunk_beside_decoding_costs_what_its_tokens_add() -> None:
    """While one sequence decodes, another prompt's 10 tokens share its step: one fixed cost, 11 tokens."""
    times = LinearTimes(fixed=0.01, token=0.001)
    served = serve(requests((0.0, 1, 100), (0.0111, 10, 1)), Fleet(group(times, homes=1)))
    # Steps: prefill 0.011 s, a decode step 0.011 s (the second arrives in it), then the mixed one of 11 tokens.
    assert served.first_token_seconds_N[1] == pytest.approx(0.022 + 0.01 + 0.011)


def test_a_full_cache_makes_the_next_wait_for_a_finish() -> None:
    served = serve(requests((0.0, 60, 40), (0.0, 60, 40)), Fleet(group(homes=1, kv_tokens=120)))
    assert served.admitted_seconds_N[1] == pytest.approx(served.finish_seconds_N[0])


def test_steps_taken_in_one_go_equal_steps_taken_singly() -> None:
    """An onlooker whose arrivals cut the leaps short, but who hardly costs anything, changes nothing."""
    times = LinearTimes(fixed=0.01, token=0.0, context=1e-7)
    alone = serve(requests((0.0, 50, 400)), Fleet(group(times)))
    full = group(times, homes=1, sequences=1)
    watched = serve(requests((0.0, 50, 400), *((0.013 * n, 50, 1) for n in range(1, 200))), Fleet(full))
    assert watched.finish_seconds_N[0] == pytest.approx(alone.finish_seconds_N[0])


@pytest.mark.parametrize("apart", [False, True])
def test_more_load_never_shortens_the_time_to_the_first_token(apart: bool) -> None:
    base = poisson_requests(10, 1500, 400, 60, spread=0.7, seed=3)
    one = group(grid_times(), homes=8, kv_tokens=8000, sequences=64, budget=512)
    fleet = Fleet(one, one, TRANSFER) if apart else Fleet(one)
    points = [
        measure(serve(base.at_rate(rate), fleet), rate, ServingLimits()) for rate in (2, 8, 32, 128, 512)
    ]
    for name in ("p50", "p90", "p99"):
        ttft = [getattr(point.ttft_seconds, name) for point in points]
        assert all(later >= 0.97 * earlier for earlier, later in itertools.pairwise(ttft)), (
            name,
            ttft,
        )
    assert points[-1].ttft_seconds.p99 > 2 * points[0].ttft_seconds.p99
    assert all(0 < share <= 1 + 1e-9 for point in points for share in point.busy_share.values())


def test_the_same_requests_give_the_same_times() -> None:
    base = poisson_requests(50, 300, 200, 30, spread=0.5, seed=1)
    first, second = (serve(base, separate()) for _ in range(2))
    assert (first.finish_seconds_N == second.finish_seconds_N).all()


def test_a_request_that_never_fits_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match="needs 5010 tokens of KV cache, a home has room for 4000"):
        serve(requests((0.0, 5000, 10)), Fleet(group()))


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="leaves none for prefill"):
        group(sequences=256, budget=256)
    with pytest.raises(InputError, match="kv_tokens_per_home is 0"):
        group(kv_tokens=0)
    with pytest.raises(InputError, match="needs a KV transfer"):
        Fleet(group(), group())
    with pytest.raises(InputError, match="bandwidth must be above 0"):
        KVTransfer(1.0, 0.0, 0.0)


def test_ten_thousand_requests_take_a_few_seconds() -> None:
    """Of this process's own time, on a group under a load that keeps it full."""
    base = poisson_requests(200.0, 10_000, 800, 200, spread=0.5, seed=2)
    fleet = Fleet(group(grid_times(), homes=64, kv_tokens=200_000, sequences=128, budget=1024))
    began = time.process_time()
    served = serve(base, fleet)
    assert time.process_time() - began < 5
    check_invariants(served)


def test_requests_sent_at_once_come_one_after_another() -> None:
    """Those that come while a group wakes up are in its first step, the others find it begun."""
    sent = requests(*((0.0, 1, 1) for _ in range(6)))
    together = serve(sent, Fleet(group(LinearTimes(fixed=0.1), homes=1)))
    assert len(set(together.first_token_seconds_N)) == 1
    served = serve(sent, Fleet(group(LinearTimes(fixed=0.1), homes=1), request_seconds=0.01))
    first_N = served.first_token_seconds_N
    assert first_N[0] == pytest.approx(0.01 + 0.1 + 2 * 0.001)
    assert (first_N == first_N[0]).tolist() == [True, True, False, False, False, False]
    assert first_N[2] == first_N[5] > first_N[0] + 0.1


def test_whose_client_waits_for_an_answer_misses_the_step_that_begins_then() -> None:
    """With a request under way for each of two callers, the newer waits for the step that the older is in."""
    sent = requests(*((0.0, 1, tokens) for tokens in (2, 9, 2, 2)))
    served = serve(sent, Fleet(group(LinearTimes(fixed=0.1), homes=1), request_seconds=1e-3), concurrency=2)
    waited_N = served.first_token_seconds_N - served.requests.arrival_seconds_N
    assert waited_N[2] > 0.2
