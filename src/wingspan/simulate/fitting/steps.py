"""What a profiler traced: steps whose batch is known, predicted one by one."""

from __future__ import annotations

from collections.abc import Sequence, Set
from statistics import median

import numpy as np

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.interop.benchmarks.chrome_trace import TracedStep
from wingspan.schedule.result import Operation
from wingspan.simulate.fitting.measurements import Measurement, Predictor, Quantity
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.specs.engines import EngineKind, EngineProfile
from wingspan.specs.workload import Workload

_AROUND = (Operation.EMBED, Operation.HEAD, Operation.DRAFT)
"""What a step computes outside its layers; what an engine adds to a step lies in the first."""


class TracedSteps:
    """Steps of traces that were all taken of one deployment.

    Args:
        deployment: what was traced; its workload counts as far as a trace says no other.
        steps: as they were found.
        said: fields of a description that somebody said: what a trace does not say must be among them.

    Raises:
        InputError: a trace has other ranks than the deployment, or its batch or context is not known, or said twice.
    """

    def __init__(self, deployment: Deployment, steps: Sequence[TracedStep], said: Set[str]) -> None:
        alike: dict[tuple[str, bool], list[tuple[TracedStep, Deployment]]] = {}
        for step in steps:
            of_step = _of(step, deployment, said)
            key = _described(of_step), step.layers_seconds is not None
            alike.setdefault(key, []).append((step, of_step))
        self._deployments = [pairs[0][1] for pairs in alike.values()]
        self._measured = [_measured([step for step, _ in pairs], key[0]) for key, pairs in alike.items()]

    @property
    def measured(self) -> Sequence[Measurement]:
        """See `Predictor`."""
        return self._measured

    def predicted(self, engine: EngineKind | EngineProfile) -> list[dict[Quantity, float]]:
        """See `Predictor`."""
        return [_figures(predict(_around(deployment, engine))) for deployment in self._deployments]


def _around(deployment: Deployment, engine: EngineKind | EngineProfile) -> Deployment:
    options = deployment.options.model_copy(update={"engine": engine})
    return deployment.model_copy(update={"options": options})


def _figures(prediction: Prediction) -> dict[Quantity, float]:
    timeline = prediction.timeline
    around_R = sum((timeline.busy_seconds(operation) for operation in _AROUND), np.zeros(1))
    step = timeline.step_seconds
    return {Quantity.STEP: step, Quantity.LAYERS: step - float(np.max(around_R))}


def _described(deployment: Deployment) -> str:
    return f"{deployment.workload.phase}, {deployment.tokens:,} tokens"


def _measured(alike: Sequence[TracedStep], described: str) -> Measurement:
    """Steps that are alike, of one trace or of several: the median of the traces."""
    figures = {Quantity.STEP: median(step.seconds for step in alike)}
    inside = [step.layers_seconds for step in alike if step.layers_seconds is not None]
    if inside:
        figures[Quantity.LAYERS] = median(inside)
    count = sum(step.count for step in alike)
    sources = ", ".join(step.source for step in alike)
    remarks = dict.fromkeys(remark for step in alike for remark in step.remarks)
    repeated = f"{count} steps" if count > 1 else ""
    return Measurement(f"{sources} (trace)", described, figures, repeated, tuple(remarks))


def _of(step: TracedStep, deployment: Deployment, said: Set[str]) -> Deployment:
    if step.ranks not in (1, deployment.ranks):
        raise InputError(
            f"{step.source}: has {step.ranks} ranks, the deployment {deployment.ranks}; give as many"
        )
    if "context" not in said:
        raise InputError(f"{step.source}: a trace does not say how long its sequences were; give `context`")
    batch = said & {"tokens_per_gpu", "total_sequences"}
    if step.tokens is None and not batch:
        raise InputError(f"{step.source}: does not say how many tokens its steps had; give `tokens_per_gpu`")
    if step.tokens is not None and batch:
        raise InputError(
            f"{step.source}: says that its steps had {step.tokens} tokens; leave out `{min(batch)}`"
        )
    if step.phase is not None and "phase" in said:
        raise InputError(f"{step.source}: says that its steps are {step.phase}; leave out `phase`")
    return deployment.model_copy(update={"workload": _workload(step, deployment)})


def _workload(step: TracedStep, deployment: Deployment) -> Workload:
    """The deployment's, with the trace's phase and tokens; a trace of one rank stands for all."""
    work, ranks = deployment.workload, deployment.ranks
    phase = step.phase or work.phase
    if step.tokens is None:
        return work
    tokens = step.tokens if step.ranks == ranks else step.tokens * ranks
    fullest = -(-tokens // ranks)
    if phase == "decode":
        total = tokens if tokens % ranks else None
        return work.model_copy(update={"phase": phase, "total_sequences": total, "tokens_per_gpu": fullest})
    context = work.context.model_copy(update={"mean_tokens": min(work.context.mean_tokens, fullest)})
    changed = {"phase": phase, "total_sequences": None, "tokens_per_gpu": fullest, "context": context}
    return work.model_copy(update=changed)


class AllMeasured:
    """Several predictors as one: their measurements one after another."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self._predictors = predictors

    @property
    def measured(self) -> Sequence[Measurement]:
        """See `Predictor`."""
        return [one for predictor in self._predictors for one in predictor.measured]

    def predicted(self, engine: EngineKind | EngineProfile) -> list[dict[Quantity, float]]:
        """See `Predictor`."""
        return [one for predictor in self._predictors for one in predictor.predicted(engine)]
