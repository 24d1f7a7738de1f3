"""What the server tells Prometheus: few series, with vLLM's names where they mean what vLLM's mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from wingspan.runtime.generation.ledger import StepResult
from wingspan.schedule.rebalance_result import Migrated
from wingspan.server.answers import Answer
from wingspan.server.step_loop import StepLoop
from wingspan.server.watching import Watcher

OWN = "wingspan"
VLLM = "vllm"

_FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_WHOLE_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


_LABELS = ("model_name",)

Kind = TypeVar("Kind", Gauge, Counter, Histogram)


class Metrics(Watcher):
    """Counts what the engine does.

    Args:
        engine: that is watched.
        model: its name, a label of every series.
        prefixes: before each name; with `vllm`, dashboards made for vLLM find their series.
    """

    def __init__(self, model: str, prefixes: Sequence[str] = (OWN,)) -> None:
        self._registry = CollectorRegistry()
        self._sets = [_Series(prefix, model, self._registry) for prefix in prefixes]

    def watch(self, engine: StepLoop) -> None:
        """Let gauges read the engine when they are asked for."""
        for series in self._sets:
            series.running.set_function(lambda: engine.running)
            series.waiting.set_function(lambda: engine.waiting)

    def text(self) -> tuple[bytes, str]:
        """All series, and the type of this text."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def stepped(self, result: StepResult, seconds: float) -> None:
        """Count a step."""
        for series in self._sets:
            series.generated.inc(len(result.tokens))
            series.preempted.inc(result.preempted)
            series.step.observe(seconds)
            for event in result.balancing:
                if isinstance(event, Migrated):
                    series.migrations.inc()
                    series.moved.inc(event.experts_moved)

    def begun(self, answer: Answer) -> None:
        """Count a prompt."""
        for series in self._sets:
            series.prompted.inc(len(answer.ask.ids))

    def token(self, answer: Answer, now: float) -> None:
        """Time a token."""
        for series in self._sets:
            if answer.newest_token_seconds is None:
                series.first.observe(now - answer.arrived_seconds)
            else:
                series.between.observe(now - answer.newest_token_seconds)

    def ended(self, answer: Answer, reason: str, now: float) -> None:
        """Time an answer."""
        for series in self._sets:
            series.ended.labels(series.model, reason).inc()
            series.whole.observe(now - answer.arrived_seconds)


class _Series:
    def __init__(self, prefix: str, model: str, registry: CollectorRegistry) -> None:
        self.model = model

        def labelled(series: Kind) -> Kind:
            return series.labels(model)

        def gauge(name: str, text: str) -> Gauge:
            return labelled(Gauge(f"{prefix}:{name}", text, _LABELS, registry=registry))

        def counter(name: str, text: str) -> Counter:
            return labelled(Counter(f"{prefix}:{name}", text, _LABELS, registry=registry))

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return labelled(Histogram(f"{prefix}:{name}", text, _LABELS, registry=registry, buckets=buckets))

        self.running = gauge("num_requests_running", "Answers that are being computed.")
        self.waiting = gauge("num_requests_waiting", "Answers that wait for a place.")
        self.prompted = counter("prompt_tokens", "Tokens of prompts.")
        self.generated = counter("generation_tokens", "New tokens.")
        self.preempted = counter(
            "num_preemptions", "Answers put back for want of room, to be computed again."
        )
        self.ended = Counter(
            f"{prefix}:request_success",
            "Answers that ended, by why.",
            (*_LABELS, "finished_reason"),
            registry=registry,
        )
        self.first = histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST_SECONDS)
        self.between = histogram(
            "inter_token_latency_seconds", "Between tokens of an answer.", _TOKEN_SECONDS
        )
        self.whole = histogram("e2e_request_latency_seconds", "Arrival to last token.", _WHOLE_SECONDS)
        self.migrations = counter("expert_migrations", "Times that experts were moved.")
        self.moved = counter("experts_moved", "Experts that were moved.")
        self.step = histogram("step_seconds", "Steps of the engine.", _TOKEN_SECONDS)
