"""Which EP size, slots, batch, sharding, dispatcher and schedule are best on a given number of GPUs.

Every way is estimated from few layers (`estimate.py`); what comes close to the best is predicted whole and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wingspan.deployment import Deployment
from wingspan.schedule.result import StepReport
from wingspan.simulate.group_search import EstimatedDeployment, GroupSearch, Wanted
from wingspan.simulate.layouts import ep_sizes, expert_cuts
from wingspan.simulate.memory import largest_batch
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report

_CLOSE = 0.98
"""What is estimated at so much of the best rate or more is predicted whole: estimates are within a percent or two."""
_MOST_CLOSE = 6


@dataclass(frozen=True)
class DeploymentChoice:
    """One deployment with its prediction; `gpus / ranks` copies of it run side by side."""

    deployment: Deployment
    report: StepReport
    gpus: int

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Throughput per GPU; where sequences are counted in all, groups with fewer of them than this one have less."""
        planned = self.deployment.planned
        if planned is None or planned.total_sequences is None:
            return self.report.tokens_per_second / self.report.ranks
        tokens = planned.total_sequences * self.deployment.workload.tokens_per_sequence
        return tokens / self.report.step_seconds / self.gpus

    @property
    def peak_bytes(self) -> float:
        """Memory of the fullest rank."""
        return max(self.report.peak_memory_bytes)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of all GPUs."""
        return self.tokens_per_second_per_gpu * self.gpus


def best_of_each_ep(
    template: Deployment, gpus: int, *, fixed_batch: bool, longest_step_seconds: float | None = None
) -> list[DeploymentChoice]:
    """For each EP size, and each number of ranks that cut all experts, the fastest deployment that fits.

    Fastest in tokens per second per GPU; the fewest ranks come first.

    Args:
        template: model, hardware, work and options; its placement, attention and schedule, with `fixed_batch` False
            its batch, and where none is asked for its dispatcher, are replaced.
        gpus: all GPUs; each EP group takes as many as it needs.
        fixed_batch: keep the workload's tokens per GPU.
        longest_step_seconds: leave out what takes longer (in decode: the time per output token).

    Raises:
        InputError: the GPUs do not fill whole nodes.
    """
    cluster = template.cluster.with_gpus(gpus)
    start = template.model_copy(update={"cluster": cluster})
    wanted = Wanted(fixed_batch, longest_step_seconds)
    found: list[EstimatedDeployment] = []
    asked = None if template.planned is None else template.planned.expert_tensor_parallel
    for ranks in ep_sizes(template.model.experts.count, template.cluster.part(gpus)):
        for cut in expert_cuts(ranks, start.cluster, template.model.experts.intermediate, asked):
            found += GroupSearch(_with_cut(of_group(start, ranks), cut), ranks, wanted).run()
    best = _settled(found, gpus, wanted)
    if best and longest_step_seconds is not None and not fixed_batch:
        fastest = max(best, key=lambda size: best[size].tokens_per_second_per_gpu)
        best[fastest] = _enlarged(best[fastest], longest_step_seconds)
    return [best[size] for size in sorted(best)]


def of_group(start: Deployment, ranks: int) -> Deployment:
    """With the fullest group's part of the sequences, where they are counted over all GPUs."""
    total = None if start.planned is None else start.planned.total_sequences
    if total is None:
        return start
    groups = start.cluster.gpus // ranks
    work = start.workload.model_copy(update={"total_sequences": -(-total // groups)})
    return start.model_copy(update={"workload": work.spread_over(ranks)})


def _with_cut(start: Deployment, ranks: int) -> Deployment:
    options = start.options.model_copy(update={"expert_tensor_parallel": ranks})
    return start.model_copy(update={"options": options})


def _size(deployment: Deployment) -> tuple[int, int]:
    """What each choice is the best of: ranks, and over how many each expert is cut."""
    return deployment.ranks, deployment.options.expert_tensor_parallel


def _settled(
    found: list[EstimatedDeployment], gpus: int, wanted: Wanted
) -> dict[tuple[int, int], DeploymentChoice]:
    """Each size's best, predicted whole: the best estimate of each, then whatever else is close to the best."""
    best: dict[tuple[int, int], DeploymentChoice] = {}
    later: list[EstimatedDeployment] = []
    top = 0.0
    for one in sorted(found, key=lambda f: -f.tokens_per_second_per_gpu):
        size = _size(one.deployment)
        if size in best:
            later.append(one)
        elif (choice := _whole(one.deployment, gpus, wanted)) is not None:
            best[size] = choice
            top = max(top, choice.tokens_per_second_per_gpu)
    close = [one for one in later if one.tokens_per_second_per_gpu >= _CLOSE * top]
    for one in close[:_MOST_CLOSE]:
        choice = _whole(one.deployment, gpus, wanted)
        size = _size(one.deployment)
        if choice and choice.tokens_per_second_per_gpu > best[size].tokens_per_second_per_gpu:
            best[size] = choice
    return best


def _whole(deployment: Deployment, gpus: int, wanted: Wanted) -> DeploymentChoice | None:
    """The whole prediction; with a smaller batch where the real loads need more room or time than even ones."""
    while True:
        prediction = predict(deployment)
        choice = DeploymentChoice(deployment, step_report(prediction), gpus)
        batch, longest = deployment.workload.tokens_per_gpu, wanted.longest_step_seconds
        fits = choice.peak_bytes <= deployment.cluster.gpu.memory_bytes
        if fits and (longest is None or choice.report.step_seconds <= longest):
            return choice
        smaller = batch - 1
        if fits and longest is not None:
            smaller = min(smaller, int(batch * longest / choice.report.step_seconds))
        elif not fits:
            rows_R = prediction.arrived_LR.max(axis=0) / batch
            smaller = min(smaller, largest_batch(deployment, None, prediction.placement, rows_R))
        if wanted.fixed_batch or smaller < 1:
            return None
        deployment = with_workload(deployment, tokens_per_gpu=smaller)


def _enlarged(choice: DeploymentChoice, longest_seconds: float) -> DeploymentChoice:
    """The largest batch from the choice's on whose whole prediction fits and keeps to the limit."""
    wanted = Wanted(fixed_batch=True, longest_step_seconds=longest_seconds)

    def tried(batch: int) -> DeploymentChoice | None:
        return _whole(with_workload(choice.deployment, tokens_per_gpu=batch), choice.gpus, wanted)

    stride, best = 1, choice
    while larger := tried(best.deployment.workload.tokens_per_gpu + stride):
        best, stride = larger, 2 * stride
    while stride > 1:
        stride //= 2
        best = tried(best.deployment.workload.tokens_per_gpu + stride) or best
    return best


def with_workload(deployment: Deployment, **changes: Any) -> Deployment:
    """The deployment with other work."""
    return deployment.model_copy(update={"workload": deployment.workload.model_copy(update=changes)})


__all__ = ["DeploymentChoice", "best_of_each_ep", "of_group", "with_workload"]
