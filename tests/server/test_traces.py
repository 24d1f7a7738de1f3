"""Spans of answers, as a collector gets them: what they are named, what they say, and how they lie in time."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx2 as httpx
import pytest

from tests.server.running import server
from wingspan.errors import RunError
from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Sampling
from wingspan.server.answers import Answer, Ask, Origin
from wingspan.server.text import TextStream
from wingspan.server.traces import Traces

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra `traces`")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def told() -> Iterator[tuple[Traces, Any]]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    traces = Traces(provider, "tiny")
    yield traces, memory
    traces.close()


def answer(arrived: float, sampling: Sampling | None = None, origin: Origin | None = None) -> Answer:
    ask = Ask((1, 2, 3), sampling or Sampling(), Length(7))
    return Answer(ask, TextStream(lambda ids: "x" * len(ids)), arrived, origin=origin)


def test_an_answer_is_a_span_with_queue_prefill_and_decode(told):
    traces, memory = told
    now = time.perf_counter()
    origin = Origin("chatcmpl-1", "chat", {"traceparent": CALLER})
    one = answer(now - 10, Sampling(0.5, top_p=0.9, seed=4), origin)
    one.begun_seconds = now - 7
    traces.begun(one)
    for one.newest_token_seconds in (now - 5, now - 1):
        one.first_token_seconds = one.first_token_seconds or one.newest_token_seconds
        one.push(8, None, None)
    traces.ended(one, "length", now - 1)
    *parts, span = memory.get_finished_spans()
    assert (span.name, span.kind.name, span.status.status_code.name) == ("chat tiny", "SERVER", "UNSET")
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "wingspan",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 4,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.id": "chatcmpl-1",
    }
    assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{span.parent.span_id:016x}" == CALLER.split("-")[2]
    assert [(part.name, round(seconds(part), 3)) for part in parts] == [
        ("queue", 3.0), ("prefill", 2.0), ("decode", 4.0),
    ]  # fmt: skip
    assert {part.parent.span_id for part in parts} == {span.context.span_id}
    assert seconds(span) == pytest.approx(9.0, abs=1e-3)
    assert span.start_time == pytest.approx(time.time_ns() - 10e9, abs=2e9)


def seconds(span: Any) -> float:
    return (span.end_time - span.start_time) / 1e9


def test_who_leaves_and_what_the_engine_leaves_unfinished_are_errors(told):
    traces, memory = told
    now = time.perf_counter()
    left, cut = answer(now - 3), answer(now - 2)
    for one in (left, cut):
        one.begun_seconds = one.arrived_seconds + 1
        traces.begun(one)
    traces.ended(left, "abort", now)
    traces.failed(RunError("rank 1 was killed"))
    traces.failed(RunError("once is enough"))
    spans = {span.attributes["error.type"]: span for span in memory.get_finished_spans() if span.attributes}
    assert set(spans) == {"caller_left", "engine_ended"}
    assert spans["engine_ended"].status.description == "rank 1 was killed"
    assert len(memory.get_finished_spans()) == 2 * 3


class Collector(BaseHTTPRequestHandler):
    """Takes what it is sent by OTLP."""

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.got.append((self.path, ExportTraceServiceRequest.FromString(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_tells_a_collector_of_every_answer():
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.got = []  # type: ignore[attr-defined]
        Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        with server("--ranks", "1", "--otlp-traces-endpoint", endpoint) as running:
            call = {"prompt": ["import ", "def "], "max_tokens": 3}
            headers = {"traceparent": CALLER}
            answered = httpx.post(f"{running.address}/v1/completions", json=call, headers=headers, timeout=60)
            assert running.end() == 0
        collector.shutdown()
    resources = [
        part for path, request in collector.got for part in request.resource_spans if path == "/v1/traces"
    ]
    named = {a.key: a.value.string_value for part in resources for a in part.resource.attributes}
    assert named["service.name"] == "wingspan"
    spans = [span for part in resources for scope in part.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == [
        *["decode"] * 2, *["prefill"] * 2, *["queue"] * 2, *["text_completion tiny"] * 2,
    ]  # fmt: skip
    assert {span.trace_id.hex() for span in spans} == {CALLER.split("-")[1]}
    ids = {a.value.string_value for span in spans for a in span.attributes if a.key == "gen_ai.response.id"}
    assert ids == {answered.json()["id"]}


def test_a_collector_that_is_not_there_holds_nobody_up():
    with server("--ranks", "1", "--otlp-traces-endpoint", "http://127.0.0.1:9/v1/traces") as running:
        call = {"prompt": "import ", "max_tokens": 3}
        assert httpx.post(f"{running.address}/v1/completions", json=call, timeout=60).status_code == 200
        begun = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - begun < 20
    assert "Traceback" not in "".join(running.said)
