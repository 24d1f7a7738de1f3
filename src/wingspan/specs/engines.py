"""Engines: what a serving engine spends beyond the kernels that it runs, fitted on what such engines published.

The kernels' constants are those of benchmarks. Inside an engine the host has work between two steps, each pass of a
layer has more and smaller kernels, and an exchange waits for its own bookkeeping and for ranks that come late.
"""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from wingspan.errors import InputError
from wingspan.reading import check_kind
from wingspan.specs.cluster import Cluster
from wingspan.specs.kernels import EngineWork, ExchangeKernel, ExchangePhase, longer
from wingspan.specs.reading import Spec, parse, read_yaml
from wingspan.writing import write_text

Seconds = Annotated[float, Field(ge=0)]
Slowdown = Annotated[float, Field(ge=1)]
Share = Annotated[float, Field(gt=0)]


class EngineKind(StrEnum):
    """The engine around the kernels."""

    NONE = "none"
    SGLANG = "sglang"
    VLLM = "vllm"
    TRTLLM = "trtllm"


class EngineProfile(Spec):
    """One engine's constants: docs/cost-model.md, Engines."""

    name: str
    source: str
    fitted_on: str = Field(description="which published steps, in words")
    relative_error: float = Field(ge=0, description="of a step, nine times of ten, by what the engine adds")
    step_seconds: Seconds = Field(description="per step: scheduling and sampling that no step hides")
    agreement_seconds: Seconds = Field(
        default=0.0,
        description="per step, where attention is data-parallel: its ranks agree on what the step does",
    )
    sequence_seconds: Seconds = Field(
        default=0.0,
        description="decode: per sequence of a home (a rank, or those that share attention): sampling, text, sending",
    )
    token_seconds: Seconds = Field(default=0.0, description="prefill: per token of a home's prompts")
    expert_seconds: Seconds = Field(
        default=0.0,
        description="per expert of a rank that has rows, in each layer: where experts are launched one by one",
    )
    layer_seconds: Seconds = Field(
        description="decode: per pass of a layer, beyond `Kernels.small` (more kernels, launch gaps)"
    )
    request_seconds: Seconds = Field(
        default=0.0,
        description="serving: per request before it can be admitted, one after another: client, network, reading it",
    )
    prompts_apart: bool = Field(
        default=False,
        description="serving: prompts are computed in a forward of their own, before the sequences that decode; "
        "else in one batch with these",
    )
    compute: Share = Field(
        default=1.0, description="what computing takes in the engine, over what the kernels' constants say"
    )
    normal_dispatch: Slowdown = Field(description="a normal dispatch inside the engine over its benchmark")
    normal_combine: Slowdown
    low_latency_dispatch: Slowdown
    low_latency_combine: Slowdown

    def on(self, cluster: Cluster) -> Cluster:
        """The cluster with its kernels as this engine runs them."""
        cluster = _computing_slower(cluster, self.compute)
        kernels = cluster.kernels
        work = EngineWork(
            step_seconds=self.step_seconds,
            agreement_seconds=self.agreement_seconds,
            sequence_seconds=self.sequence_seconds,
            token_seconds=self.token_seconds,
            expert_seconds=self.expert_seconds,
            layer_seconds=self.layer_seconds,
        )
        changed = {
            "normal": _slowed(kernels.normal, self.normal_dispatch, self.normal_combine),
            "low_latency": _slowed(kernels.low_latency, self.low_latency_dispatch, self.low_latency_combine),
            "engine": work,
        }
        return cluster.model_copy(update={"kernels": kernels.model_copy(update=changed)})


def _engine(value: Any) -> Any:
    """An engine as a deployment's file has it: a name, or a profile's keys."""
    if isinstance(value, EngineKind | EngineProfile):
        return value
    try:
        if isinstance(value, dict):
            return parse(EngineProfile, value, "an engine's profile")
        return EngineKind(value)
    except InputError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        raise ValueError(f"use one of {', '.join(EngineKind)}, or a profile's keys") from None


Engine = Annotated[EngineKind | EngineProfile, BeforeValidator(_engine)]
"""An engine that Wingspan knows by name, or a profile of one's own."""


def engine_named(kind: EngineKind) -> EngineProfile:
    """The constants of an engine; those of `none` change nothing."""
    path = resources.files("wingspan.specs") / "presets" / "engines" / f"{kind}.yaml"
    with resources.as_file(path) as file:
        return parse(EngineProfile, read_yaml(file), f"engine {kind}")


def profile_of(engine: EngineKind | EngineProfile) -> EngineProfile:
    """The constants of an engine, whichever way it was given."""
    return engine if isinstance(engine, EngineProfile) else engine_named(engine)


def engine_of(text: str, name: str) -> EngineKind | EngineProfile:
    """The engine that a text names: a preset, or the file of a profile.

    Args:
        text: `none`, `sglang`, `vllm`, `trtllm`, or a path.
        name: of what said it; errors start with it.

    Raises:
        InputError: neither a preset nor a readable profile.
    """
    if text in list(EngineKind):
        return EngineKind(text)
    if not Path(text).is_file():
        raise InputError(f"{name} {text}: use one of {', '.join(EngineKind)}, or the file of a profile")
    data = read_yaml(Path(text))
    check_kind(data, text, "an engine's profile")
    return parse(EngineProfile, data, text)


def engine_text(profile: EngineProfile) -> str:
    """A profile as the text of its file; `engine_of` reads it."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, width=100)


def save_engine(profile: EngineProfile, path: Path) -> None:
    """Write a profile's file.

    Raises:
        InputError: it cannot be written.
    """
    write_text(path, engine_text(profile))


def _computing_slower(cluster: Cluster, times: float) -> Cluster:
    """The cluster, on which everything but exchanges takes so many times as long; below 1: is as much faster."""
    if times == 1:
        return cluster
    gpu, kernels = cluster.gpu, cluster.kernels
    parts = {
        part: longer(getattr(kernels, part), times) for part in ("matmul", "experts", "attention", "small")
    }
    shares = {name: getattr(gpu, name) / times for name in ("mfu", "memory_bandwidth_utilisation")}
    return cluster.model_copy(
        update={"gpu": gpu.model_copy(update=shares), "kernels": kernels.model_copy(update=parts)}
    )


def _slowed(kernel: ExchangeKernel, dispatch: float, combine: float) -> ExchangeKernel:
    return kernel.model_copy(
        update={"dispatch": _slower(kernel.dispatch, dispatch), "combine": _slower(kernel.combine, combine)}
    )


def _slower(phase: ExchangePhase, factor: float) -> ExchangePhase:
    """Every part of an exchange, so many times as long."""
    durations = ("launch_seconds", "across_seconds", "doubling_seconds", "processor_seconds")
    rates = (
        "scale_up_share",
        "scale_out_share",
        "forward_bytes_per_second_per_processor",
        "copy_bytes_per_second_per_processor",
        "processor_bytes_per_second",
    )
    return phase.model_copy(
        update={
            **{name: getattr(phase, name) * factor for name in durations},
            **{name: getattr(phase, name) / factor for name in rates},
        }
    )
