"""The main job on one rank: load, generate, and on rank 0 bring the results of all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch

from wingspan.routing.trace import RoutingTrace
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.prompts import Prompt
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.measuring.choices import PhaseChoices, joined
from wingspan.runtime.measuring.recorder import clock_name
from wingspan.runtime.measuring.report import CardMemory, RankMeasurement, peak_memory_bytes, step_report
from wingspan.runtime.measuring.timeline import run_timeline
from wingspan.runtime.model.engine import Engine
from wingspan.runtime.model.reference import Check, check
from wingspan.runtime.model.step import SEQUENTIAL
from wingspan.runtime.start import EngineSetup, start
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.rebalance_result import RebalanceEvent
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.specs.memory import MemoryPart

OnTokens = Callable[[dict[int, int]], None]
"""Called on rank 0 after each step with the new token of each prompt (prompt index -> id)."""


@dataclass(frozen=True)
class RunRequest:
    """What to run; the same on every rank."""

    engine: EngineSetup
    prompts: list[Prompt]
    max_new_tokens: int
    sampling: Sampling
    keep_logits: bool = False
    keep_spans: bool = False
    keep_choices: bool = False
    """Also keep which experts every token chose; not beside rebalancing, which looks at them too."""
    ignore_eos: bool = False
    """The model's own end-of-text tokens end nothing: every prompt gets all its new tokens."""


@dataclass(frozen=True)
class Output:
    """One prompt's continuation."""

    prompt_ids: list[int]
    token_ids: list[int]
    prompt: str | None
    text: str | None
    home_rank: int


@dataclass(frozen=True)
class RunResult:
    """What rank 0 knows at the end."""

    outputs: list[Output]
    prefill: StepReport
    decode: StepReport | None
    load_seconds: float
    timeline: RunTimeline = field(default_factory=RunTimeline)
    """Empty where no spans were kept."""
    check: Check | None = None
    logits: Mapping[int, list[torch.Tensor]] = field(default_factory=dict)
    """Those of each prompt's new tokens (V,), where they were kept."""
    rebalance: list[RebalanceEvent] | None = None
    """The log of live balancing; None where it was off."""
    choices: Mapping[str, RoutingTrace] = field(default_factory=dict)
    """What all tokens of each phase chose, where it was kept."""

    @property
    def report(self) -> StepReport:
        """The phase that most of the steps belong to: decode, or prefill where it gave the only token."""
        return self.decode or self.prefill

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "outputs": [asdict(o) for o in self.outputs],
            "report": self.report.model_dump(mode="json"),
            "prefill_report": self.prefill.model_dump(mode="json"),
            "load_seconds": self.load_seconds,
            "rebalance": [event.model_dump(mode="json") for event in self.rebalance or []],
            "check": asdict(self.check) | {"passed": self.check.passed} if self.check else None,
        }


@dataclass(frozen=True)
class Listener:
    """What rank 0's caller wants to hear while the run goes on."""

    on_loaded: Callable[[float], None]
    on_tokens: OnTokens


def run(
    transport: Transport, request: RunRequest, tokenizer: Tokenizer, listener: Listener
) -> RunResult | None:
    """Take part in a run. Collective; returns the result on rank 0, None elsewhere."""
    started = start(transport, request.engine, keep_logits=request.keep_logits, keep_spans=request.keep_spans)
    engine, generator, rebalancer = started.engine, started.generator, started.rebalancer
    if transport.world.rank == 0:
        listener.on_loaded(started.load_seconds)
    choices = _observe_choices(engine) if request.keep_choices else None
    token_ids = _generate(generator, request, listener if transport.world.rank == 0 else None)
    events = None if rebalancer is None else rebalancer.finish()
    measurement = _measurement(engine, generator, rebalancer)
    parts: Any = transport.gather((measurement, generator.logits, {} if choices is None else choices.take()))
    if parts is None:
        return None
    result = _bring_together(
        [part[:2] for part in parts], token_ids, request, tokenizer, transport, started.load_seconds
    )
    kept = joined([part[2] for part in parts], request.engine.placement.num_experts)
    return replace(result, rebalance=events, choices=kept)


def _observe_choices(engine: Engine) -> PhaseChoices:
    engine.shape.check_choices_can_be_kept()
    choices = PhaseChoices(len(engine.layers), engine.recorder)
    engine.monitor.observer = choices
    return choices


def _generate(generator: Generator, request: RunRequest, listener: Listener | None) -> list[list[int]]:
    """Submit every prompt, and step until all have ended; the new tokens of each, in the prompts' order."""
    length = Length(request.max_new_tokens, ignore_eos=request.ignore_eos)
    token_ids: dict[int, list[int]] = {prompt.index: [] for prompt in request.prompts}
    for prompt in request.prompts:
        generator.submit(
            Request(prompt.index, prompt.ids, request.sampling, length, prompt.index, prompt.home_rank)
        )
    while generator.unfinished:
        tokens = generator.step().tokens
        for number, token in tokens.items():
            token_ids[number].append(token)
        if listener is not None:
            listener.on_tokens(tokens)
    return [token_ids[prompt.index] for prompt in request.prompts]


def _measurement(engine: Engine, generator: Generator, rebalancer: Rebalancer | None) -> RankMeasurement:
    card = CardMemory.now(next(engine.model.parameters()).device)
    return RankMeasurement(
        rank=engine.transport.world.rank,
        steps=engine.recorder.steps,
        load_LE={phase: load.cpu().numpy() for phase, load in generator.load_LE.items()},
        memory_bytes={
            **engine.weight_bytes,
            MemoryPart.KV_CACHE: generator.cache_bytes,
            MemoryPart.STAGING: 0 if rebalancer is None else rebalancer.staging_bytes,
        },
        peak_memory_bytes=peak_memory_bytes() if card is None else card.reserved_bytes,
        spans=engine.recorder.spans,
        steps_ended=engine.recorder.ended,
        buffer_bytes=generator.buffer_bytes,
        clock=clock_name(),
        host_peak_bytes=peak_memory_bytes(),
        card=card,
    )


def _bring_together(
    parts: list[Any],
    tokens: list[list[int]],
    request: RunRequest,
    tokenizer: Tokenizer,
    transport: Transport,
    load_seconds: float,
) -> RunResult:
    ranks: list[RankMeasurement] = [measurement for measurement, _ in parts]
    reports: dict[Literal["prefill", "decode"], StepReport | None] = {
        phase: step_report(
            ranks,
            phase,
            request.engine.placement,
            transport.world,
            request.engine.flows.get(phase, SEQUENTIAL).name,
        )
        for phase in ("prefill", "decode")
    }
    prefill = reports["prefill"]
    if prefill is None:
        raise RuntimeError("a run without a prefill step")
    outputs = [
        Output(p.ids, ids, p.text, tokenizer.decode(ids), p.home_rank)
        for p, ids in zip(request.prompts, tokens, strict=True)
    ]
    logits = {number: kept for _, of_rank in parts for number, kept in of_rank.items()}
    return RunResult(outputs, prefill, reports["decode"], load_seconds, run_timeline(ranks), logits=logits)


def checked(result: RunResult, request: RunRequest) -> RunResult:
    """The result beside the single-process reference, computed here and now; the group need not live any more.

    Args:
        result: of a run whose logits were kept.
        request: what was run.
    """
    found = check(
        request.engine.model.folder,
        request.engine.model.dtype,
        [p.ids for p in request.prompts],
        [output.token_ids for output in result.outputs],
        [result.logits[p.index] for p in request.prompts],
        greedy=not request.sampling.temperature,
    )
    return replace(result, check=found)
