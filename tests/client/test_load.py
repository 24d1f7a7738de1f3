"""What a load measures is what the server did, at the times and in the numbers asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.client.stub import stub
from wingspan.client.call import Endpoint
from wingspan.client.load import Load, drive, served_model
from wingspan.client.report import report, vllm_result
from wingspan.errors import InputError, RunError
from wingspan.schedule.serving_result import ServingLimits
from wingspan.specs.requests import Requests


def requests(count: int, gap_seconds: float, output_tokens: int = 5) -> Requests:
    arrivals = np.arange(count) * gap_seconds
    return Requests(arrivals, np.arange(count) + 3, np.full(count, output_tokens))


def test_times_are_those_of_the_server():
    with stub(0.2, 0.05) as server:
        answers = drive(Endpoint(server.address, "stub"), Load(requests(6, 0.1)))
    found = report(answers, ServingLimits(ttft_p99_seconds=5.0))
    # A busy machine is late, and never early.
    assert 0.2 <= found.ttft_seconds.p50 < 0.4
    assert 0.05 <= found.tpot_seconds.p50 < 0.15
    assert found.end_to_end_seconds.p50 >= 0.2 + 4 * 0.05
    assert [one.prompt_tokens for one in answers] == [3, 4, 5, 6, 7, 8]
    assert [len(body["prompt"]) for body in server.bodies] == [3, 4, 5, 6, 7, 8]
    assert all(body["ignore_eos"] and body["max_tokens"] == 5 for body in server.bodies)
    assert answers[5].sent_seconds >= 0.5
    assert found.within_limits_share == 1


def test_as_many_are_under_way_as_asked_for():
    with stub(0.02, 0.01) as server:
        drive(Endpoint(server.address, "stub"), Load(requests(20, 0.0), concurrency=4))
    assert server.most == 4
    assert len(server.bodies) == 20


def test_a_key_is_carried_and_progress_told():
    told = []
    with stub(0.0, 0.0) as server:
        drive(
            Endpoint(server.address, "stub", "secret"),
            Load(requests(3, 0.0)),
            lambda done, of: told.append((done, of)),
        )
    assert server.keys == ["Bearer secret"] * 3
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_failures_are_counted_and_do_not_count_as_answers():
    with stub(0.0, 0.0, refuse_every=3) as server:
        target = Endpoint(server.address, "stub")
        answers = drive(target, Load(requests(9, 0.01)))
    found = report(answers, ServingLimits())
    assert found.requests == 6
    result = vllm_result(target, answers, found, rate=100.0, concurrency=None, date="d")
    assert (result["completed"], result["failed"], result["num_prompts"]) == (6, 3, 9)
    assert sum("no room" in error for error in result["errors"]) == 3
    assert result["total_output_tokens"] == 6 * 5
    lists = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors")
    assert {len(result[name]) for name in lists} == {9}
    assert result["generated_texts"].count("xxxxx") == 6


def test_a_load_that_nobody_answers_is_an_error():
    with stub(0.0, 0.0, refuse_every=1) as server, pytest.raises(RunError, match="no room"):
        drive(Endpoint(server.address, "stub"), Load(requests(2, 0.0)))


def test_the_model_is_asked_of_the_server():
    with stub(0.0, 0.0) as server:
        assert served_model(server.address, None) == "stub"
    with pytest.raises(InputError, match="no answer"):
        served_model(server.address, None)
