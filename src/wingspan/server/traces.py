"""What the server tells an OpenTelemetry collector: a span for every answer, in it those of queue, prefill and decode.

Names are OpenTelemetry's for generative AI (semantic conventions of `gen_ai`, as of 1.37, still in development). Texts
are not told. A caller's own trace (`traceparent`, W3C Trace Context) goes on in the span.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wingspan.errors import WingspanError
from wingspan.server.answers import Answer
from wingspan.server.watching import Watcher
from wingspan.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PROVIDER = "wingspan"
_ERROR_REASONS = {"abort": "caller_left"}
"""What ends an answer before its time, as `error.type` names it."""
_LAST_SECONDS = 5
"""How long the end of the server waits for the collector."""


def otlp(endpoint: str) -> TracerProvider:
    """What sends spans to a collector, by OTLP over HTTP; OTEL_* variables of the environment say the rest.

    Args:
        endpoint: its URL for traces, such as `http://localhost:4318/v1/traces`.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # A line for every batch that is lost, not for every try.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    named = Resource({SERVICE_NAME: _PROVIDER, SERVICE_VERSION: __version__})
    resource = Resource.create().merge(named).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider


class Traces(Watcher):
    """Makes an answer's spans once it has ended: what they need is in the answer.

    Args:
        provider: where they go.
        model: its name.
    """

    def __init__(self, provider: TracerProvider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._tracer = provider.get_tracer(_PROVIDER, __version__)
        self._under_way: set[Answer] = set()

    def begun(self, answer: Answer) -> None:
        """Remember who would end with the engine."""
        self._under_way.add(answer)

    def ended(self, answer: Answer, reason: str, now: float) -> None:
        """Tell of an answer."""
        self._under_way.discard(answer)
        self._tell(answer, reason, now, _ERROR_REASONS.get(reason))

    def failed(self, error: WingspanError) -> None:
        """Tell of the answers that the engine left unfinished."""
        now = time.perf_counter()
        for answer in self._under_way:
            self._tell(answer, "error", now, "engine_ended", str(error))
        self._under_way = set()

    def close(self) -> None:
        """Send what is left, if the collector takes it soon."""
        self._provider.force_flush(1000 * _LAST_SECONDS)
        self._provider.shutdown()

    def _tell(self, answer: Answer, reason: str, now: float, error: str | None, why: str = "") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        origin = answer.origin
        operation = "text_completion" if origin is None else origin.operation
        caller = TraceContextTextMapPropagator().extract({} if origin is None else origin.trace)
        attributes = {**_asked(answer), **_given(answer, reason), **_named(self._model, operation)}
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            caller,
            SpanKind.SERVER,
            {**attributes, **({} if error is None else {"error.type": error})},
            start_time=_epoch_nanoseconds(answer.arrived_seconds),
        )
        inside = set_span_in_context(span)
        for name, (begin, end) in _parts(answer, now).items():
            part = self._tracer.start_span(name, inside, start_time=_epoch_nanoseconds(begin))
            part.end(_epoch_nanoseconds(end))
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, why or error))
        span.end(_epoch_nanoseconds(now))


def _epoch_nanoseconds(moment_seconds: float) -> int:
    """A moment of `time.perf_counter` on the clock of the world."""
    return time.time_ns() - int((time.perf_counter() - moment_seconds) * 1e9)


def _parts(answer: Answer, now: float) -> dict[str, tuple[float, float]]:
    """From when until when the answer was in each of its stages, as far as it came."""
    begins = {
        "queue": answer.arrived_seconds,
        "prefill": answer.begun_seconds,
        "decode": answer.first_token_seconds,
    }
    reached = [(name, begin) for name, begin in begins.items() if begin is not None]
    ends = [begin for _, begin in reached[1:]] + [now]
    return {name: (begin, end) for (name, begin), end in zip(reached, ends, strict=True)}


def _named(model: str, operation: str) -> dict[str, str]:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
    }


def _asked(answer: Answer) -> Mapping[str, str | int | float]:
    """What the caller wanted; what was left open is left out."""
    sampling = answer.ask.sampling
    wanted = {
        "max_tokens": answer.ask.length.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
    }
    return {f"gen_ai.request.{name}": value for name, value in wanted.items() if value is not None}


def _given(answer: Answer, reason: str) -> dict[str, str | int | list[str]]:
    given: dict[str, str | int | list[str]] = {
        "gen_ai.usage.input_tokens": len(answer.ask.ids),
        "gen_ai.usage.output_tokens": len(answer.tokens),
        "gen_ai.response.finish_reasons": [reason],
    }
    return given if answer.origin is None else given | {"gen_ai.response.id": answer.origin.id}
