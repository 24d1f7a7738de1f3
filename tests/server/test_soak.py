"""The soak of `benchmarks.serving_soak`, short: and it tells of what grows."""

from __future__ import annotations

from benchmarks.serving_soak import calls, growth, soak
from benchmarks.soak import Held

CALLS = 300
MOST_GROWTH_BYTES = 60_000_000
"""So early buffers, and the records of the latest steps, still fill."""


def test_hundreds_of_calls_leave_nothing() -> None:
    assert soak(CALLS, ranks=2, at_once=16, most_growth_bytes=MOST_GROWTH_BYTES) == []


def test_calls_are_of_every_sort() -> None:
    asked = list(calls(CALLS, seed=1))
    assert {call.path for call in asked} == {"/v1/completions", "/v1/chat/completions"}
    assert any(call.leaves for call in asked)
    fields = {name for call in asked for name in call.body}
    assert fields >= {"n", "stop", "seed", "logprobs", "response_format", "echo", "messages", "prompt"}
    assert {call.body["stream"] for call in asked} == {False, True}


def test_what_grows_is_named() -> None:
    early = [Held(100, 10, 4), Held(200, 20, 5)]
    assert growth(early, early, 0) == []
    assert growth(early, [Held(100, 10, 4), Held(251, 20, 5)], 50) == [
        "rank 0 grew by 51 bytes, more than 50"
    ]
    (problem,) = growth(early, [Held(100, 11, 4), Held(200, 20, 5)], 50)
    assert problem.startswith("the server holds more descriptors or threads")
