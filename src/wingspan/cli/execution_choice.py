"""`--schedule auto` and `--dispatcher auto` of a run: what the cost model says is fastest on a calibrated cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.deployment import Deployment
from wingspan.placement.spec import PlacementSpec
from wingspan.report.units import seconds_text
from wingspan.simulate.execution import Candidate, best_execution, pick
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.models import load_model
from wingspan.specs.placement import Placement
from wingspan.specs.reading import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wingspan.runtime.api import Prompt
    from wingspan.runtime.launch.group import Group


@dataclass(frozen=True)
class Execution:
    """What was chosen: a schedule per phase, one dispatcher, and a line that says why."""

    schedules: dict[str, str]
    dispatcher: DispatcherKind | None
    reason: str


def choose(
    folder: Path,
    cluster_file: str,
    group: Group,
    placement: Placement,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    dispatcher: DispatcherKind | None,
) -> Execution:
    """Predict every candidate for this run's batches.

    Args:
        folder: the checkpoint.
        cluster_file: of the machine it runs on, as `wingspan calibrate` writes it, or a preset.
        group: the ranks.
        placement: of the experts.
        prompts: with `ids` and `home_rank`.
        max_new_tokens: the run's.
        dispatcher: that the user wants; None: to be chosen.

    Raises:
        InputError: the model's family is unknown to the planner, or the cluster file is wrong.
    """
    fullest = max(sum(p.home_rank == rank for p in prompts) for rank in range(group.size))
    tokens = max(sum(len(p.ids) for p in prompts if p.home_rank == rank) for rank in range(group.size))
    length = max(1, round(sum(len(p.ids) for p in prompts) / len(prompts)))
    cluster = load_cluster(cluster_file).with_nodes(group.size // group.ranks_per_node, group.ranks_per_node)

    def step(phase: str, tokens_per_gpu: int, context: int) -> Deployment:
        workload = {
            "phase": phase,
            "tokens_per_gpu": tokens_per_gpu,
            "context": context,
            "fluctuating": False,
        }
        parts = {
            "model": load_model(str(folder)),
            "cluster": cluster,
            "workload": workload,
            "placement": PlacementSpec.explicit(placement),
        }
        return parse(Deployment, parts, "--schedule auto")

    phases = {"prefill": (step("prefill", tokens, length), 1)}
    if max_new_tokens > 1:
        phases["decode"] = (step("decode", fullest, length + max_new_tokens // 2), max_new_tokens - 1)
    several = group.ranks_per_node < group.size and group.ranks_per_node > 1
    both = [DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL] if several else [DispatcherKind.FLAT]
    found = best_execution(phases, both if dispatcher is None else [dispatcher])
    first = {name: pick(ways) for name, ways in found.items()}
    return Execution(
        schedules={name: way.schedule for name, way in first.items()},
        dispatcher=next(iter(first.values())).dispatcher,
        reason="; ".join(_reason(name, ways) for name, ways in found.items()),
    )


def _reason(phase: str, ways: list[Candidate]) -> str:
    best = pick(ways)
    plain = next(way for way in ways if way.schedule == "sequential")
    text = (
        f"{phase}: {best.schedule}, {best.dispatcher.value} dispatch, predicted {seconds_text(best.seconds)}"
    )
    return text if best is plain else f"{text} (sequential {seconds_text(plain.seconds)})"
