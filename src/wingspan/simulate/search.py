"""Which EP size, slots, batch, sharding, dispatcher and schedule are best on a given number of GPUs.

Every way is estimated from few layers (`estimate.py`); what comes close to the best is predicted whole and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wingspan.deployment import Deployment
from wingspan.schedule.result import StepReport
from wingspan.simulate.group_search import EstimatedDeployment, GroupSearch, Wanted
from wingspan.simulate.layouts import Kept, ep_sizes, expert_cuts
from wingspan.simulate.memory import largest_batch, memory_use
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.simulate.summary import step_report

_CLOSE = 0.98
"""What is estimated at so much of the best rate or more is predicted whole: estimates are within a percent or two."""
_MOST_CLOSE = 6

Watch = Callable[[str, int, int], None]
"""Told of an EP size that is tried next: its name, and that so many of so many are done."""


def unwatched(size: str, done: int, of: int) -> None:
    """Nobody looks on."""
    del size, done, of


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
    template: Deployment,
    gpus: int,
    *,
    fixed_batch: bool,
    longest_step_seconds: float | None = None,
    kept: Kept | None = None,
    watch: Watch = unwatched,
) -> list[DeploymentChoice]:
    """For each EP size, and each number of ranks that cut all experts, the fastest deployment that fits.

    Fastest in tokens per second per GPU; the fewest ranks come first.

    Args:
        template: model, hardware, work and options; its placement, attention and schedule, with `fixed_batch` False
            its batch, and where none is asked for its dispatcher, are replaced.
        gpus: all GPUs; each EP group takes as many as it needs.
        fixed_batch: keep the workload's tokens per GPU; else a step holds whole prompts, one or more.
        longest_step_seconds: leave out what takes longer (in decode: the time per output token).
        kept: slots and placement that are asked for.
        watch: looks on.

    Raises:
        InputError: the GPUs do not fill whole nodes.
    """
    least = 1 if fixed_batch else template.workload.tokens_per_sequence
    wanted = Wanted(fixed_batch, longest_step_seconds, least_batch=least, kept=kept or Kept())
    sizes = ep_sizes(template.model.experts.count, template.cluster.part(gpus))
    found = found_at(
        template, gpus, sizes, wanted, cut=True, begun=lambda i: watch(f"EP {sizes[i]}", i, len(sizes))
    )
    best = settled(found, gpus, wanted)
    if best and longest_step_seconds is not None and not fixed_batch:
        fastest = max(best, key=lambda size: best[size].tokens_per_second_per_gpu)
        best[fastest] = enlarged(best[fastest], wanted)
    return [best[size] for size in sorted(best)]


def found_at(
    template: Deployment,
    gpus: int,
    sizes: Sequence[int],
    wanted: Wanted,
    *,
    cut: bool = False,
    begun: Callable[[int], None] | None = None,
) -> list[EstimatedDeployment]:
    """What fits of all that is tried on groups of these sizes, estimated; see `best_of_each_ep`.

    Experts lie whole on their ranks; with `cut` also in parts, over as many ranks as are asked for or over all.
    `begun` is told the index of each size.
    """
    start = template.model_copy(update={"cluster": template.cluster.with_gpus(gpus)})
    asked = None if template.planned is None else template.planned.expert_tensor_parallel
    found: list[EstimatedDeployment] = []
    near = 0
    for index, ranks in enumerate(sizes):
        if begun is not None:
            begun(index)
        group, width = of_group(start, ranks), template.model.experts.intermediate
        for each in expert_cuts(ranks, start.cluster, width, asked) if cut else [1]:
            here = GroupSearch(_with_cut(group, each), ranks, wanted, near).run()
            near = here[0].deployment.workload.tokens_per_gpu if here else near
            found += here
    return found


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


def settled(
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
        elif (choice := whole(one.deployment, gpus, wanted)) is not None:
            best[size] = choice
            top = max(top, choice.tokens_per_second_per_gpu)
    close = [one for one in later if one.tokens_per_second_per_gpu >= _CLOSE * top]
    for one in close[:_MOST_CLOSE]:
        choice = whole(one.deployment, gpus, wanted)
        size = _size(one.deployment)
        if choice and choice.tokens_per_second_per_gpu > best[size].tokens_per_second_per_gpu:
            best[size] = choice
    return best


def whole(deployment: Deployment, gpus: int, wanted: Wanted) -> DeploymentChoice | None:
    """The whole prediction; with a smaller batch where the real loads need more room or time than even ones.

    None where that would be less than the least that is wanted.
    """
    while True:
        prediction = predict(deployment)
        choice = DeploymentChoice(deployment, step_report(prediction), gpus)
        batch, longest = deployment.workload.tokens_per_gpu, wanted.longest_step_seconds
        held = held_bytes(prediction, wanted.held_context)
        fits = held <= deployment.cluster.gpu.memory_bytes
        if fits and (longest is None or choice.report.step_seconds <= longest):
            return choice
        smaller = batch - 1
        if fits and longest is not None:
            smaller = min(smaller, int(batch * longest / choice.report.step_seconds))
        elif not fits:
            rows_R = prediction.arrived_LR.max(axis=0) / batch
            smaller = min(
                smaller, largest_batch(deployment, wanted.held_context, prediction.placement, rows_R)
            )
        if wanted.fixed_batch or smaller < wanted.least_batch:
            return None
        deployment = with_workload(deployment, tokens_per_gpu=smaller)


def held_bytes(prediction: Prediction, context: int | None = None) -> float:
    """Memory of the fullest rank, with each sequence's cache for so many tokens where they are said."""
    deployment, rows_R = prediction.deployment, prediction.arrived_LR.max(axis=0)
    if context is not None:
        work = deployment.workload.context.model_copy(update={"mean_tokens": context})
        deployment = with_workload(deployment, context=work)
    return float(np.rint(memory_use(deployment, prediction.placement, rows_R).total_R.max()))


def enlarged(choice: DeploymentChoice, wanted: Wanted) -> DeploymentChoice:
    """The largest batch from the choice's on whose whole prediction fits and keeps to the limit."""
    exactly = replace(wanted, fixed_batch=True)

    def tried(batch: int) -> DeploymentChoice | None:
        return whole(with_workload(choice.deployment, tokens_per_gpu=batch), choice.gpus, exactly)

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


__all__ = [
    "DeploymentChoice",
    "best_of_each_ep",
    "enlarged",
    "found_at",
    "held_bytes",
    "of_group",
    "settled",
    "whole",
    "with_workload",
]
