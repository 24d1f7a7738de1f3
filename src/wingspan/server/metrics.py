"""What the server tells Prometheus: few series, with vLLM's names where they mean what vLLM's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        model: its name, a label of every series.
        prefixes: before the names that vLLM has too; with `vllm`, dashboards made for vLLM find their series.
    """

    def __init__(self, model: str, prefixes: Sequence[str] = (OWN,)) -> None:
        self._registry = CollectorRegistry()
        self._sets = [_Series(_Maker(prefix, model, self._registry)) for prefix in prefixes]
        self._own = _OwnSeries(_Maker(OWN, model, self._registry))

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
        self._own.stepped(result, seconds)

    def begun(self, answer: Answer) -> None:
        """Count a prompt, and time its wait."""
        for series in self._sets:
            series.prompted.inc(len(answer.ask.ids))
            if answer.begun_seconds is not None:
                series.queued.observe(answer.begun_seconds - answer.arrived_seconds)

    def token(self, answer: Answer, now: float) -> None:
        """Time a token; with the first it is known how much of the prompt was found computed."""
        for series in self._sets:
            if answer.newest_token_seconds is None:
                series.first.observe(now - answer.arrived_seconds)
                if answer.cached_tokens is not None:
                    series.looked_up.inc(len(answer.ask.ids))
                    series.found.inc(answer.cached_tokens)
            else:
                series.between.observe(now - answer.newest_token_seconds)

    def ended(self, answer: Answer, reason: str, now: float) -> None:
        """Time an answer."""
        for series in self._sets:
            series.ended.labels(series.model, reason).inc()
            series.whole.observe(now - answer.arrived_seconds)
            if (seconds := answer.seconds_per_token) is not None:
                series.per_token.observe(seconds)


@dataclass(frozen=True)
class _Maker:
    """Makes series whose names begin alike."""

    prefix: str
    model: str
    registry: CollectorRegistry

    def gauge(self, name: str, text: str) -> Gauge:
        return self._labelled(Gauge(f"{self.prefix}:{name}", text, _LABELS, registry=self.registry))

    def counter(self, name: str, text: str) -> Counter:
        return self._labelled(Counter(f"{self.prefix}:{name}", text, _LABELS, registry=self.registry))

    def histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return self._labelled(
            Histogram(f"{self.prefix}:{name}", text, _LABELS, registry=self.registry, buckets=buckets)
        )

    def _labelled(self, series: Kind) -> Kind:
        return series.labels(self.model)


class _Series:
    """What vLLM counts too, under the same names."""

    def __init__(self, make: _Maker) -> None:
        self.model = make.model
        self.running = make.gauge("num_requests_running", "Answers that are being computed.")
        self.waiting = make.gauge("num_requests_waiting", "Answers that wait for a place.")
        self.prompted = make.counter("prompt_tokens", "Tokens of prompts.")
        self.looked_up = make.counter("prefix_cache_queries", "Tokens of prompts that were looked up.")
        self.found = make.counter("prefix_cache_hits", "Tokens of prompts that were found computed.")
        self.generated = make.counter("generation_tokens", "New tokens.")
        self.preempted = make.counter(
            "num_preemptions", "Answers put back for want of room, to be computed again."
        )
        self.ended = Counter(
            f"{make.prefix}:request_success",
            "Answers that ended, by why.",
            (*_LABELS, "finished_reason"),
            registry=make.registry,
        )
        self.queued = make.histogram("request_queue_time_seconds", "Arrival to a place.", _FIRST_SECONDS)
        self.first = make.histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST_SECONDS)
        self.between = make.histogram(
            "inter_token_latency_seconds", "Between tokens of an answer.", _TOKEN_SECONDS
        )
        self.per_token = make.histogram(
            "request_time_per_output_token_seconds", "Mean between tokens, of each answer.", _TOKEN_SECONDS
        )
        self.whole = make.histogram("e2e_request_latency_seconds", "Arrival to last token.", _WHOLE_SECONDS)


class _OwnSeries:
    """What only this server counts."""

    def __init__(self, make: _Maker) -> None:
        self._migrations = make.counter("expert_migrations", "Times that experts were moved.")
        self._moved = make.counter("experts_moved", "Experts that were moved.")
        self._step = make.histogram("step_seconds", "Steps of the engine.", _TOKEN_SECONDS)

    def stepped(self, result: StepResult, seconds: float) -> None:
        self._step.observe(seconds)
        for event in result.balancing:
            if isinstance(event, Migrated):
                self._migrations.inc()
                self._moved.inc(event.experts_moved)
