"""Engines: what a serving engine spends beyond the kernels that it runs, fitted on what such engines published.

The kernels' constants are those of benchmarks. Inside an engine the host has work between two steps, each pass of a
layer has more and smaller kernels, and an exchange waits for its own bookkeeping and for ranks that come late.
"""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from typing import Annotated

from pydantic import Field

from wingspan.specs.cluster import Cluster
from wingspan.specs.kernels import EngineWork, ExchangeKernel, ExchangePhase
from wingspan.specs.reading import Spec, parse, read_yaml

Seconds = Annotated[float, Field(ge=0)]
Slowdown = Annotated[float, Field(ge=1)]


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
    layer_seconds: Seconds = Field(
        description="decode: per pass of a layer, beyond `Kernels.small` (more kernels, launch gaps)"
    )
    normal_dispatch: Slowdown = Field(description="a normal dispatch inside the engine over its benchmark")
    normal_combine: Slowdown
    low_latency_dispatch: Slowdown
    low_latency_combine: Slowdown

    def on(self, cluster: Cluster) -> Cluster:
        """The cluster with its kernels as this engine runs them."""
        kernels = cluster.kernels
        work = EngineWork(step_seconds=self.step_seconds, layer_seconds=self.layer_seconds)
        slower = {
            "normal": _slowed(kernels.normal, self.normal_dispatch, self.normal_combine),
            "low_latency": _slowed(kernels.low_latency, self.low_latency_dispatch, self.low_latency_combine),
            "engine": work,
        }
        return cluster.model_copy(update={"kernels": kernels.model_copy(update=slower)})


def engine_named(kind: EngineKind) -> EngineProfile:
    """The constants of an engine; those of `none` change nothing."""
    path = resources.files("wingspan.specs") / "presets" / "engines" / f"{kind}.yaml"
    with resources.as_file(path) as file:
        return parse(EngineProfile, read_yaml(file), f"engine {kind}")


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
        "processor_bytes_per_second",
    )
    return phase.model_copy(
        update={
            **{name: getattr(phase, name) * factor for name in durations},
            **{name: getattr(phase, name) / factor for name in rates},
        }
    )
