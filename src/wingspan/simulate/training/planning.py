"""Which way to spread a training step fits, and which is fastest."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec
from wingspan.simulate.memory import reserve_bytes
from wingspan.simulate.training.layout import TrainingLayout, layouts
from wingspan.simulate.training.memory import TrainingMemory, fullest
from wingspan.simulate.training.step import Forward, TrainingStep, forward_of, step_of
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import Workload

USUAL_SEQUENCES_PER_GPU = 8
"""DeepSeek-V3 trained with 15,360 sequences on 2,048 GPUs (arXiv:2412.19437, section 4.2)."""


@dataclass(frozen=True)
class TrainingChoice:
    """One layout that fits, or the closest to it."""

    layout: TrainingLayout
    memory: TrainingMemory
    step: TrainingStep
    micro_batches: int


@dataclass(frozen=True)
class TrainingPlan:
    """What was compared.

    Args:
        choices: layouts that fit, the fastest first; where none does, that with the least memory.
        fits: whether there is one that does.
        tried: how many layouts there were.
        sequences: of a step, over all GPUs (global batch size).
        gpus: all of them.
    """

    model: ModelSpec
    cluster: Cluster
    workload: Workload
    choices: list[TrainingChoice]
    fits: bool
    tried: int
    sequences: int
    gpus: int

    def tokens_per_second_per_gpu(self, choice: TrainingChoice) -> float:
        """Trained tokens per second and GPU."""
        return self.sequences * self.workload.tokens_per_gpu / choice.step.seconds / self.gpus


def plan_training(
    model: ModelSpec, cluster: Cluster, workload: Workload, gpus: int, sequences: int | None = None
) -> TrainingPlan:
    """Compare all layouts of a step.

    Args:
        model: what trains.
        cluster: whose GPUs; as many nodes of it as are needed.
        workload: a prefill whose tokens per GPU are a micro-batch: one sequence.
        gpus: all of them.
        sequences: of a step, over all GPUs; default: `USUAL_SEQUENCES_PER_GPU` for each GPU.

    Raises:
        InputError: the GPUs do not fill whole nodes, or no layout divides GPUs and sequences.
    """
    whole = cluster.with_gpus(gpus)
    total = sequences or USUAL_SEQUENCES_PER_GPU * gpus
    found = layouts(model, cluster, gpus, total)
    if not found:
        raise InputError(
            f"{total} sequences in all do not divide over the data-parallel ranks of {gpus} GPUs; take a multiple of "
            f"{gpus}, or of fewer than that where layers are spread over pipeline stages"
        )
    reserve = reserve_bytes(cluster, Options())
    capacity, tokens = cluster.gpu.memory_bytes, workload.tokens_per_gpu
    held = [(one, fullest(model, one, tokens, total // one.data, reserve)) for one in found]
    fitting = [(one, use) for one, use in held if use.total <= capacity]
    shown = fitting or [min(held, key=lambda pair: pair[1].total)]
    group = {one.experts: _group(model, whole, workload, one.experts) for one, _ in shown}
    forward: dict[int, Forward] = {size: forward_of(deployment) for size, deployment in group.items()}
    choices = [
        TrainingChoice(
            one,
            use,
            step_of(group[one.experts], forward[one.experts], one, total // one.data),
            total // one.data,
        )
        for one, use in shown
    ]
    choices.sort(key=lambda choice: choice.step.seconds)
    return TrainingPlan(model, cluster, workload, choices, bool(fitting), len(found), total, gpus)


def _group(model: ModelSpec, cluster: Cluster, workload: Workload, ranks: int) -> Deployment:
    return Deployment(
        model=model,
        cluster=cluster,
        workload=workload,
        placement=PlacementSpec(ranks=ranks, experts_per_rank=-(-model.experts.count // ranks)),
        options=Options(dispatcher=DispatcherKind.HIERARCHICAL),
    )
