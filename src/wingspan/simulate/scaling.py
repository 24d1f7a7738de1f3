"""How a deployment scales: the same model at other EP sizes, and what is left of ideal speed."""

from __future__ import annotations

import numpy as np

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.schedule import COMMUNICATION
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import TRIED, ScheduleKind, schedule_text
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import UniformRouting, Workload


def with_experts(model: ModelSpec, count: int) -> ModelSpec:
    """Give the model `count` experts per layer; top-k stays, as far as there are so many."""
    experts = model.experts.model_copy(
        update={
            "count": count,
            "per_token": min(model.experts.per_token, count),
            "groups": 1,
            "groups_per_token": 1,
        }
    )
    return model.with_experts(experts)


def one_expert_per_gpu(
    model: ModelSpec, cluster: Cluster, workload: Workload, ranks: int, options: Options | None = None
) -> Deployment:
    """`model` with as many experts as ranks, one on each: every rank has the same work at every EP size."""
    return Deployment(
        model=with_experts(model, ranks),
        cluster=cluster.with_gpus(ranks),
        workload=workload,
        placement=PlacementSpec(ranks=ranks),
        options=options or Options(),
    )


def ideal_step_seconds(deployment: Deployment) -> float:
    """The step with evenly loaded ranks and free transfers: what each rank computes, once, without waiting."""
    even = deployment.workload.model_copy(update={"routing": UniformRouting(), "fluctuating": False})
    options = deployment.options.model_copy(update={"schedule": ScheduleKind.SEQUENTIAL.value})
    report = simulate(deployment.model_copy(update={"workload": even, "options": options}))
    computing = [
        seconds
        for operation, seconds in report.operation_seconds.items()
        if operation not in (*COMMUNICATION, Operation.WAIT)
    ]
    return float(np.sum(computing, axis=0).mean())


def parallel_efficiency(deployment: Deployment, report: StepReport) -> float:
    """`ideal_step_seconds` over the predicted step: 1 = no time lost to transfers, skew or contention."""
    return ideal_step_seconds(deployment) / report.step_seconds


def exposed_transfer_share(report: StepReport) -> float:
    """Share of the step in which the mean rank waits for a transfer itself, not for slower ranks."""
    waited = float(np.mean(report.operation_seconds.get(Operation.WAIT, [0.0])))
    return max(0.0, report.overhead - waited / report.step_seconds)


def fastest_schedule(deployment: Deployment) -> tuple[Deployment, StepReport]:
    """The deployment with the schedule that is predicted to be fastest."""
    tried = [
        deployment.model_copy(update={"options": deployment.options.model_copy(update={"schedule": text})})
        for text in map(schedule_text, TRIED)
    ]
    return min(((d, simulate(d)) for d in tried), key=lambda pair: pair[1].step_seconds)
