"""What `serve` refuses before ranks start, and what the its options lead to."""

from __future__ import annotations

import json
import socket
import sys

import httpx2 as httpx
import psutil
import pytest

from tests.server.running import server


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--host", "0.0.0.0"), "WINGSPAN_API_KEY"),
        (("--host", "not.an.address"), "--host not.an.address"),
        (("--ranks", "2", "--experts-per-rank", "1"), "--ranks 8"),
        (("--ranks", "8", "--placement", "best"), "--placement best"),
        (("--schedule", "auto"), "--schedule auto"),
        (("--dispatcher", "pigeons"), "--dispatcher"),
        (("--transport", "pigeons"), "transport"),
        (("--dtype", "int3"), "--dtype int3"),
        (("--row-precision", "fp4"), "--row-precision fp4"),
        (("--rebalance", "sometimes"), "--rebalance 'sometimes'"),
        (("--ranks", "1", "--rebalance", "auto"), "use --ranks 2 or more"),
        (("--device", "tpu"), "--device tpu"),
        (("--checkpoint", "models/tiny"), "--checkpoint models/tiny: does nothing here"),
        (("--ranks", "4", "--ranks-per-node", "3"), "--ranks-per-node 3"),
        (("--max-sequences", "16", "--step-tokens", "16"), "16"),
        (("--experts-per-rank", "0"), "--experts-per-rank 0"),
        (("--max-waiting", "-1"), "--max-waiting"),
        (("--max-body-mb", "0"), "--max-body-mb"),
        (("--port", "99999"), "--port"),
        (("--otlp-traces-endpoint", "localhost:4318"), "--otlp-traces-endpoint localhost:4318"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(wingspan, options, named):
    done = wingspan("serve", "models/tiny", *options)
    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err


def test_a_port_in_use_is_said_at_once(wingspan):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = wingspan("serve", "models/tiny", "--ranks", "8", "--port", port)
    assert done.code == 2
    assert port in done.err


def test_a_key_and_everybody_exclude_each_other(wingspan, monkeypatch):
    monkeypatch.setenv("WINGSPAN_API_KEY", "k")
    assert "--anybody" in wingspan("serve", "models/tiny", "--anybody").err


def test_traces_without_their_extra_are_refused_with_its_name(wingspan, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    done = wingspan("serve", "models/tiny", "--otlp-traces-endpoint", "http://localhost:4318/v1/traces")
    assert done.code == 2
    assert "pip install 'wingspan[traces]'" in done.err


def test_a_deployment_is_served_as_it_says_with_every_option(wingspan, tmp_path):
    file = tmp_path / "d.json"
    described = ("simulate", "models/tiny", "--ranks", "2", "--experts-per-rank", "4", "--out", str(file))
    assert wingspan(*described).code == 0
    said = json.loads(file.read_text())
    said["options"]["shared_beside_dispatch"] = False
    file.write_text(json.dumps(said))
    options = (
        "--host", "127.0.0.1", "--model-name", "mine", "--allow-origin", "http://a.example", "--vllm-metrics",
        "--max-sequences", "2", "--step-tokens", "64", "--max-waiting", "1", "--transport", "torch",
        "--dispatcher", "flat", "--schedule", "chunks:2", "--dtype", "bfloat16",
        "--row-precision", "float8", "--ranks-per-node", "2", "--device", "cpu", "--rebalance", "auto",
        "--max-body-mb", "0.01", "--no-prefix-caching", "--kv-tokens-per-rank", "48",
    )  # fmt: skip
    with server(*options, model=str(file)) as running:
        assert len(psutil.Process(running.process.pid).children()) == 2
        assert httpx.get(f"{running.address}/v1/models").json()["data"][0]["id"] == "mine"
        headers = {"Origin": "http://a.example"}
        assert httpx.get(f"{running.address}/version", headers=headers).headers["Access-Control-Allow-Origin"]
        assert "vllm:num_requests_running" in httpx.get(f"{running.address}/metrics").text
        call = {"prompt": "import ", "max_tokens": 5}
        answer = httpx.post(f"{running.address}/v1/completions", json=call, timeout=60)
        assert answer.json()["usage"]["prompt_tokens_details"] is None
        many = httpx.post(f"{running.address}/v1/completions", json=call | {"n": 10}, timeout=60)
        assert many.status_code == 429
        full = httpx.post(f"{running.address}/v1/completions", json=call | {"max_tokens": 45}, timeout=60)
        assert full.status_code == 400
        assert "room for KV cache, of 48" in full.json()["error"]["message"]
        long = httpx.post(f"{running.address}/v1/completions", json=call | {"prompt": "x" * 20_000})
        assert long.status_code == 413


def test_a_dead_rank_ends_the_server_with_its_name():
    import os
    import signal

    with server("--ranks", "2", "--experts-per-rank", "4") as running:
        (rank, *_) = psutil.Process(running.process.pid).children()
        os.kill(rank.pid, signal.SIGKILL)
        call = {"prompt": "import ", "max_tokens": 500, "ignore_eos": True}
        answer = httpx.post(f"{running.address}/v1/completions", json=call, timeout=60)
        assert answer.status_code == 503
        assert running.process.wait(30) == 1
    said = "".join(running.said)
    assert "rank" in said.splitlines()[-1]
    assert "Traceback" not in said
