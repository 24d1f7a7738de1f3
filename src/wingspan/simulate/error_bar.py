"""How far a predicted step may be off, and what it rests on.

Errors of unlike kinds are independent: those of each kind of kernel (`Kernels.accuracy`), of what an engine adds
(`EngineProfile.relative_error`), of how much a hot rank holds up the others, and of how much computing and transfers
slow each other. The last three come from whole steps that were published (docs/cost-model.md, Error bars).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wingspan.cost.uncertainty import relative_error
from wingspan.schedule.result import Operation
from wingspan.schedule.schedule import COLLECTIVES, COMMUNICATION
from wingspan.simulate.prediction import Prediction
from wingspan.specs.engines import EngineKind, profile_of

Array = NDArray[np.float64]

_OF_HIDDEN = 0.15
"""Error per share of the step in which transfers are hidden: how much both sides slow each other then."""
_OF_FULLNESS = 0.3
"""Error per unit of the fullest rank's load above the mean: how far it holds up everyone else."""


def error_bar(prediction: Prediction, times: Mapping[Operation, Array], rank: int) -> float | None:
    """Such that a step of `seconds` lies between seconds / (1 + it) and seconds x (1 + it), nine times of ten.

    None where the cluster's kernels were not judged against measurements.

    Args:
        times: per operation and rank, as in a `StepReport`.
        rank: the slowest one.
    """
    if not prediction.cluster.kernels.accuracy:
        return None
    terms = (
        _of_kernels(prediction, times, rank),
        profile_of(prediction.deployment.options.engine).relative_error,
        _OF_FULLNESS * _fullness(prediction),
        _OF_HIDDEN * _hidden_share(prediction),
    )
    return float(np.sqrt(np.sum(np.square(terms))))


def holds(bar: float | None, error: float | None) -> bool | None:
    """Whether a bar holds the time of which the prediction is off by the relative error; None: one is lacking."""
    if bar is None or error is None:
        return None
    times = 1 + error
    return max(times, 1 / times) <= 1 + bar


def rests_on(prediction: Prediction) -> str:
    """What the prediction was fitted on, and how far it reaches beyond that, in one line."""
    cluster, deployment = prediction.cluster, prediction.deployment
    if not cluster.kernels.accuracy:
        return "the cluster file's figures alone; no measurement judged them"
    engine = profile_of(deployment.options.engine)
    measured = f"single kernels measured on {'H100 and H800' if cluster.kernels.name != 'b200' else 'B200'}"
    around = (
        "no engine around them"
        if deployment.options.engine is EngineKind.NONE
        else f"{engine.name} as fitted on {engine.fitted_on}"
    )
    reached = [
        name
        for name, each in cluster.extrapolations.items()
        if not each.across_domains or deployment.ranks > cluster.scale_up_domain_gpus
    ]
    beyond = [f"carried over: {name}" for name in reached]
    widest = cluster.kernels.accuracy.get("dispatch")
    if widest is not None and deployment.ranks > widest.high:
        beyond.append(f"exchanges of more than {widest.high:.0f} ranks")
    return "; ".join((measured, around, *beyond))


def _of_kernels(prediction: Prediction, times: Mapping[Operation, Array], rank: int) -> float:
    """Errors of one kind of operation add up over layers; those of different kinds are independent."""
    deployment = prediction.deployment
    tokens = deployment.workload.tokens_per_gpu
    context = deployment.workload.context.mean_tokens * deployment.workload.sequences_per_gpu
    shared = max(deployment.options.attention_ranks, deployment.options.expert_tensor_parallel)
    gathered = tokens * shared * deployment.model.hidden * 2
    rows = max(float(prediction.rows_LRS.sum(axis=2).mean()), 1.0)
    kinds = {
        "matmul": (tokens, (Operation.DENSE, Operation.GATE, Operation.SHARED_EXPERT, Operation.HEAD)),
        "attention": (context, (Operation.ATTENTION,)),
        "experts": (rows, (Operation.EXPERT,)),
        "dispatch": (deployment.ranks, (Operation.DISPATCH,)),
        "combine": (deployment.ranks, (Operation.COMBINE,)),
        "collective": (gathered, tuple(COLLECTIVES)),
    }
    busy: dict[Operation, float] = {
        op: float(seconds[rank]) for op, seconds in times.items() if op is not Operation.WAIT
    }
    squares = [
        (float(relative_error(prediction.cluster, kind, size)) * sum(busy.get(op, 0.0) for op in operations))
        ** 2
        for kind, (size, operations) in kinds.items()
    ]
    return float(np.sqrt(sum(squares)) / sum(busy.values()))


def _fullness(prediction: Prediction) -> float:
    """How much more the fullest rank has than the mean one, over layers; chance alone is not counted in one rank."""
    rows_LR = prediction.rows_LRS.sum(axis=2)
    mean_L = np.maximum(rows_LR.mean(axis=1), 1e-300)
    return float(np.minimum(rows_LR.max(axis=1) / mean_L - 1, 1.0).mean())


def _hidden_share(prediction: Prediction) -> float:
    timeline = prediction.timeline
    hidden = [timeline.hidden_seconds(op).mean() for op in COMMUNICATION]
    return min(float(np.sum(hidden)) / timeline.step_seconds, 1.0)
