"""Many predictions over one or more axes, each a change of one base setting, and what they say together."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.schedule.result import Operation, StepReport
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult, Value
from wingspan.simulate.findings import best_points, findings
from wingspan.simulate.scaling import fastest_schedule, parallel_efficiency, with_experts
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.reading import parse
from wingspan.specs.workload import RecordedRouting, Workload

MOST_POINTS = 20_000


@dataclass(frozen=True)
class Setting:
    """One point before it is a deployment.

    Args:
        model: as it is, or with as many experts as GPUs (`scale_experts`).
        cluster: its nodes are set to what the ranks need.
        gpus: all that work. Without `experts_per_rank` they form one group, over which all experts are spread.
        experts_per_rank: the baseline: the GPUs form groups of experts / experts_per_rank ranks, each of which
            holds the whole model and serves its own sequences. Same GPUs, same tokens on each: the same total work.
        workload: of each GPU.
        total_sequences: of all GPUs together, instead of the workload's tokens per GPU.
        options: of the step.
        fastest_schedule: predict every schedule and keep the fastest.
    """

    model: ModelSpec
    cluster: Cluster
    gpus: int
    workload: Workload
    options: Options
    experts_per_rank: int | None = None
    total_sequences: int | None = None
    scale_experts: bool = False
    fastest_schedule: bool = False

    @property
    def experts(self) -> int:
        """Logical experts per layer."""
        return self.gpus if self.scale_experts else self.model.experts.count

    @property
    def cut(self) -> int:
        """Ranks over which each expert is cut."""
        return self.options.expert_tensor_parallel

    @property
    def ranks(self) -> int:
        """Ranks of one group: its EP size, and for each of these as many as share an expert."""
        if self.experts_per_rank is None:
            return self.gpus
        return -(-self.experts // self.experts_per_rank) * self.cut

    @property
    def impossible(self) -> str | None:
        """Why the GPUs cannot be cut into such groups; None if they can."""
        per_gpu, node = self.experts_per_rank, self.cluster.gpus_per_node
        if self.ranks > node and self.ranks % node:
            return f"groups of {self.ranks} GPUs do not fill whole nodes of {node}"
        if self.ranks % self.cut:
            return f"{self.ranks} GPUs do not form groups of {self.cut} that share experts"
        if per_gpu is None:
            return None
        if per_gpu > self.experts:
            return f"{per_gpu} experts per GPU are more than the {self.experts} experts"
        if self.gpus % self.ranks:
            return f"{self.gpus} GPUs do not form whole groups of {self.ranks} with {per_gpu} experts per GPU"
        groups = self.gpus // self.ranks
        if self.total_sequences is not None and self.total_sequences % groups:
            return f"{self.total_sequences} sequences in all are not the same for {groups} groups"
        return None

    @property
    def group_workload(self) -> Workload:
        """The work of the fullest group."""
        if self.total_sequences is None:
            return self.workload
        groups = self.gpus // self.ranks
        total = {"total_sequences": -(-self.total_sequences // groups)}
        return self.workload.model_copy(update=total).spread_over(self.ranks)

    def deployment(self) -> Deployment:
        """One group of it.

        Raises:
            InputError: the GPUs cannot be cut so, or the deployment does not fit its model or cluster.
        """
        if self.impossible:
            raise InputError(self.impossible)
        unlike = self.experts != self.model.experts.count
        model = with_experts(self.model, self.experts) if unlike else self.model
        groups = self.ranks // self.cut
        parts = {
            "model": model,
            "cluster": self.cluster.with_gpus(self.ranks),
            "workload": self.group_workload,
            "placement": {"ranks": groups, "experts_per_rank": -(-self.experts // groups)},
            "options": self.options,
        }
        return parse(Deployment, parts, model.name)


@dataclass(frozen=True)
class AxisValue:
    """One value of an axis: as it is shown, and what it changes."""

    shown: Value
    apply: Callable[[Setting], Setting]


@dataclass(frozen=True)
class Axis:
    """What is varied, with its values."""

    name: str
    label: str
    choices: Sequence[AxisValue]

    @property
    def described(self) -> SweepAxis:
        """For the result."""
        return SweepAxis(name=self.name, label=self.label, values=[choice.shown for choice in self.choices])


def sweep(
    base: Setting,
    axes: Sequence[Axis],
    conditions: Mapping[str, str],
    on_point: Callable[[], None] = lambda: None,
    longest_step_seconds: float | None = None,
) -> SweepResult:
    """Predict every combination of the axes' values; combinations that cannot be built are left out and noted.

    Args:
        axes: first outermost. Changes are applied in this order, so what a later one depends on comes before it.
        conditions: for the reader of the result.
        on_point: called after each combination.
        longest_step_seconds: of which the best point is named too.

    Raises:
        InputError: no axis, too many points, no combination that can be built, or a deployment that is wrong.
    """
    _check(axes)
    described = [axis.described for axis in axes]
    points: list[SweepPoint] = []
    reports: list[StepReport] = []
    skipped: list[str] = []
    combinations = list(itertools.product(*(axis.choices for axis in axes)))
    # All are built before the first is predicted: what is wrong with the last shows at once.
    built = [_built(base, choices, skipped) for choices in combinations]
    for choices, setting in zip(combinations, built, strict=True):
        if setting is not None:
            deployment, report = _predicted(setting)
            at = {axis.name: choice.shown for axis, choice in zip(axes, choices, strict=True)}
            points.append(_point(at, deployment, report))
            reports.append(report)
        on_point()
    if not points:
        raise InputError(f"nothing to predict; {'; '.join(_left_out(skipped))}")
    return SweepResult(
        conditions=dict(conditions),
        axes=described,
        points=points,
        findings=[
            *findings(described, points),
            *best_points(described, points, longest_step_seconds),
        ],
        notes=[*_left_out(skipped), *_notes([setting for setting in built if setting is not None], reports)],
    )


def _built(base: Setting, choices: Sequence[AxisValue], skipped: list[str]) -> Setting | None:
    """The setting of one combination, checked; None where its groups cannot be built, with the reason noted."""
    setting = base
    for choice in choices:
        setting = choice.apply(setting)
    if setting.impossible:
        skipped.append(setting.impossible)
        return None
    setting.deployment()
    return setting


def _left_out(reasons: Sequence[str]) -> list[str]:
    """A sentence for each reason; those that differ in their numbers only share one."""
    alike: dict[str, list[str]] = {}
    for reason in dict.fromkeys(reasons):
        alike.setdefault(re.sub(r"\d+", "", reason), []).append(reason)
    return [
        f"left out: {said[0]}" + (f", and {len(said) - 1} more like this" if len(said) > 1 else "")
        for said in alike.values()
    ]


def _predicted(setting: Setting) -> tuple[Deployment, StepReport]:
    deployment = setting.deployment()
    return fastest_schedule(deployment) if setting.fastest_schedule else (deployment, simulate(deployment))


def _check(axes: Sequence[Axis]) -> None:
    count = 1
    for axis in axes:
        count *= len(axis.choices)
    if not axes or not count:
        raise InputError(
            "nothing is varied; give at least one option several values, such as `ranks` 16..256"
        )
    if count > MOST_POINTS:
        raise InputError(f"{count:,} points are more than {MOST_POINTS:,}; give fewer values")


def _point(at: dict[str, Value], deployment: Deployment, report: StepReport) -> SweepPoint:
    peak = max(report.peak_memory_bytes)
    return SweepPoint(
        at=at,
        ranks=report.ranks,
        experts_per_rank=report.experts_per_rank,
        schedule=report.schedule,
        tokens=report.tokens,
        step_seconds=report.step_seconds,
        relative_error=report.relative_error,
        tokens_per_second=report.tokens_per_second,
        tokens_per_second_per_gpu=report.tokens_per_second / report.ranks,
        parallel_efficiency=parallel_efficiency(deployment, report),
        exposed_share=report.overhead,
        imbalance=report.imbalance,
        peak_memory_bytes=peak,
        fits=peak <= deployment.cluster.gpu.memory_bytes,
        bound_by=_longest(report),
    )


def _longest(report: StepReport) -> str:
    """What the slowest rank spends most time on."""
    busy = {
        operation: seconds[report.slowest_rank] for operation, seconds in report.operation_seconds.items()
    }
    busy.pop(Operation.WAIT, None)
    return max(busy, key=lambda operation: busy[operation]).value if busy else ""


def _notes(settings: Sequence[Setting], reports: Sequence[StepReport]) -> list[str]:
    """What is said of every point, and of each routing that leaves something open."""
    common = _common_notes(reports)
    routings = [setting.workload.routing for setting in settings]
    said = [
        f"{routing.source}: {remark}"
        for routing in routings
        if isinstance(routing, RecordedRouting)
        for remark in routing.remarks
        if remark not in common
    ]
    return [*common, *dict.fromkeys(said)]


def _common_notes(reports: Sequence[StepReport]) -> list[str]:
    """What is said of every point."""
    return [note for note in reports[0].notes if all(note in report.notes for report in reports[1:])]
