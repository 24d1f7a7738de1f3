"""`wingspan bench serve` against a server whose times are known."""

from __future__ import annotations

import json

import pytest

from tests.client.stub import stub


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("WINGSPAN_API_KEY", "k")
    with stub(0.01, 0.002) as running:
        yield running


def test_every_option_acts(wingspan, server, tmp_path):
    usual = ("bench", "serve", f"{server.address}/v1", "--num-requests", "4", "--prompt-tokens", "20",
             "--output-tokens", "4", "--length-spread", "0", "--rate", "50")  # fmt: skip
    file = tmp_path / "r.json"
    done = wingspan(*usual, "--out", str(file), "--ttft-p99", "10", "--tpot-p99", "10", "--seed", "1")
    assert done.code == 0, done.err
    assert "4 answered, 0 failed" in done.out
    assert "100.0% within the limits" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    saved = json.loads(file.read_text())
    assert saved["input_lens"] == [20] * 4
    assert saved["output_lens"] == [4] * 4
    assert set(server.keys) == {"Bearer k"}
    assert {body["model"] for body in server.bodies} == {"stub"}
    seeded = [body["prompt"] for body in server.bodies]
    server.bodies.clear()
    (tmp_path / "t.csv").write_text("arrival_seconds,prompt_tokens,output_tokens\n0,5,2\n9,6,3\n20,7,3\n")
    trace = ("bench", "serve", server.address, "--requests", str(tmp_path / "t.csv"), "--num-requests", "2")
    done = wingspan(*trace, "--concurrency", "2", "--model-name", "other", "--json")
    result = json.loads(done.out)
    assert (result["num_prompts"], result["max_concurrency"], result["request_rate"]) == (2, 2, "inf")
    assert result["model_id"] == "other"
    assert sorted(len(body["prompt"]) for body in server.bodies) == [5, 6]
    server.bodies.clear()
    wingspan(*usual, "--seed", "2")
    assert [body["prompt"] for body in server.bodies] != seeded


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("ftp://x",), "ftp://x"), (("http://127.0.0.1:9",), "no answer"),
        (("http://127.0.0.1:9", "--rate", "1", "--concurrency", "2"), "--rate"),
        (("http://127.0.0.1:9", "--requests", "nothing.csv"), "nothing.csv"),
        (("http://127.0.0.1:9", "--ttft-p99", "-1"), "ttft"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_in_one_line(wingspan, options, named):
    done = wingspan("bench", "serve", *options)
    assert done.code == 2
    assert named in done.err
    assert done.err.count("\n") == 1 or "Usage" in done.err
