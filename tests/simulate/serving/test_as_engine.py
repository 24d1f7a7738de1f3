"""The simulator follows the engine's ledger, step for step: who gets which token when, and who is put back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulate.serving.steps import LinearTimes, group
from wingspan.runtime.generation.ledger import Ledger
from wingspan.runtime.generation.requests import Length, Request
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.group import GroupSpec
from wingspan.specs.requests import Requests


def by_ledger(requests: Requests, spec: GroupSpec) -> tuple[list[float], list[float], int]:
    """When the ledger gives each request its first and its last token, and how often it puts one back.

    Every step takes a second; where there is nothing to do, the next begins as a request arrives.
    """
    ledger = Ledger(spec.homes, spec.limits, (), together=True, in_pieces=True)
    arrival_N = requests.arrival_seconds_N.tolist()
    first, last = [0.0] * len(requests), [0.0] * len(requests)
    now, arrived, preempted = 0.0, 0, 0
    while arrived < len(requests) or ledger.held:
        if not ledger.held:
            now = max(now, arrival_N[arrived])
        while arrived < len(requests) and arrival_N[arrived] <= now:
            length = Length(int(requests.output_tokens_N[arrived]), ignore_eos=True)
            ledger.submit(Request(arrived, [1] * int(requests.prompt_tokens_N[arrived]), length=length))
            arrived += 1
        plan = ledger.plan()
        result = ledger.commit(plan, [[0] * len(rank.sampled) for rank in plan.ranks], drain=False)
        now += 1
        preempted += result.preempted
        for number in result.tokens:
            first[number] = first[number] or now
            last[number] = now
    return first, last, preempted


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=25
    ),
    homes=st.integers(1, 3),
    sequences=st.integers(1, 6),
    kv_tokens=st.integers(180, 500),
)
def test_every_token_comes_in_the_step_in_which_the_ledger_gives_it(
    rows: list[tuple[int, int, int]], homes: int, sequences: int, kv_tokens: int
) -> None:
    half_seconds, prompts, outputs = (np.array(column) for column in zip(*sorted(rows), strict=True))
    requests = Requests(half_seconds / 2, prompts, outputs)
    times = LinearTimes(fixed=1.0, token=0.0)
    spec = group(times, homes=homes, kv_tokens=kv_tokens, sequences=sequences, budget=32)
    served = serve(requests, Fleet(spec))
    first, last, preempted = by_ledger(requests, spec)
    assert served.first_token_seconds_N.tolist() == first
    assert served.finish_seconds_N.tolist() == last
    assert served.groups[0].preemptions == preempted


def test_requests_that_outgrow_their_room_are_put_back() -> None:
    requests = Requests(np.zeros(4), np.full(4, 20), np.full(4, 60))
    spec = group(LinearTimes(fixed=1.0, token=0.0), homes=1, kv_tokens=180, sequences=4, budget=64)
    served = serve(requests, Fleet(spec))
    assert served.groups[0].preemptions > 0
    assert served.groups[0].peak_kv_tokens <= 180
    assert by_ledger(requests, spec)[2] == served.groups[0].preemptions
