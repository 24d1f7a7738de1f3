"""A plan: the best deployment of each EP size on so many GPUs, what memory allows, and ways out if nothing fits."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.placement.spec import Strategy
from wingspan.simulate.knee import halved, knee
from wingspan.simulate.layouts import Kept, ep_sizes
from wingspan.simulate.memory import largest_batch, memory_use
from wingspan.simulate.search import DeploymentChoice, Watch, best_of_each_ep, of_group, unwatched
from wingspan.simulate.step import simulate
from wingspan.simulate.ways_out import WayOut, ways_out

_CONTEXTS = (1024, 4096, 16384, 65536, 131072)


@dataclass(frozen=True)
class Plan:
    """What `wingspan plan` answers.

    Args:
        choices: the fastest deployment that fits for each EP size; empty if none does.
        shown: the best of them, or where none fits what was asked for at the EP size that needs the least memory.
        breaking_part: what overflows the memory of `shown`; None if it fits.
        ways: changes after which `shown` fits; empty if it does.
        batches: the most sequences (prefill: tokens) per GPU that fit at each length of context.
        sizes: of a prefill whose batch was free, `shown` and its other batches, from the one with most tokens/s down;
            else empty.
    """

    choices: list[DeploymentChoice]
    shown: DeploymentChoice
    breaking_part: str | None
    ways: list[WayOut]
    batches: dict[int, int]
    sizes: list[DeploymentChoice]


def make_plan(
    template: Deployment,
    gpus: int,
    *,
    fixed_batch: bool,
    longest_step_seconds: float | None = None,
    kept: Kept | None = None,
    watch: Watch = unwatched,
) -> Plan:
    """Compare EP sizes.

    A prefill step takes the batch that is worth its time (`knee.py`), where neither batch nor step is asked for.

    Args:
        template: model, hardware, work and options; placement and sharding are chosen.
        gpus: all GPUs.
        fixed_batch: keep the workload's tokens per GPU instead of choosing the batch too.
        longest_step_seconds: limit on the step.
        kept: slots and placement that are asked for.
        watch: looks on.

    Raises:
        InputError: the GPUs do not fill whole nodes, what fits takes longer than the limit, or no EP size suits the
            slots that are asked for.
    """
    kept = kept or Kept()
    kept.check(
        template.model.experts.count, ep_sizes(template.model.experts.count, template.cluster.part(gpus))
    )
    choices = best_of_each_ep(
        template,
        gpus,
        fixed_batch=fixed_batch,
        longest_step_seconds=longest_step_seconds,
        kept=kept,
        watch=watch,
    )
    if not choices and longest_step_seconds is not None:
        _check_not_only_slow(template, gpus, longest_step_seconds, fixed_batch, kept)
    free = template.workload.phase == "prefill" and not fixed_batch and longest_step_seconds is None
    curves = [halved(choice) if free else [choice] for choice in choices]
    best = max(curves, key=lambda curve: knee(curve).tokens_per_second_per_gpu, default=[])
    shown = knee(best) if best else _as_asked(template, gpus, kept)
    use = memory_use(shown.deployment)
    return Plan(
        choices=[knee(curve) for curve in curves],
        shown=shown,
        breaking_part=use.breaking_part,
        ways=ways_out(shown.deployment),
        batches=_batches(shown.deployment),
        sizes=best if free else [],
    )


def _check_not_only_slow(
    template: Deployment, gpus: int, longest_seconds: float, fixed_batch: bool, kept: Kept
) -> None:
    """Raise if memory would have had room, and only the limit on the step left nothing."""
    work = template.workload
    one = work.tokens_per_gpu if fixed_batch else work.tokens_per_sequence
    small = template.model_copy(update={"workload": work.model_copy(update={"tokens_per_gpu": one})})
    steps = [c.report.step_seconds for c in best_of_each_ep(small, gpus, fixed_batch=True, kept=kept)]
    if steps:
        tokens = f"{one} new token{'s' if one > 1 else ''}"
        raise InputError(
            f"a step of {longest_seconds * 1e3:g} ms is too short: {tokens} per GPU take {min(steps) * 1e3:.1f} ms "
            "or more; allow longer steps, or take faster hardware"
        )


def _as_asked(template: Deployment, gpus: int, kept: Kept) -> DeploymentChoice:
    """At the EP size, of equal ones the largest, that comes closest to fitting."""
    whole = template.model_copy(update={"cluster": template.cluster.with_gpus(gpus)})
    experts = template.model.experts.count
    tried = [
        of_group(whole, ranks).model_copy(
            update={"placement": kept.spec(kept.strategy or Strategy.LINEAR, ranks, slots[0])}
        )
        for ranks in reversed(ep_sizes(experts, template.cluster.part(gpus)))
        if (slots := kept.slot_counts(experts, ranks))
    ]
    closest = min(tried, key=lambda deployment: float(memory_use(deployment).total_R.max()))
    return DeploymentChoice(closest, simulate(closest), gpus)


def _batches(deployment: Deployment) -> dict[int, int]:
    longest = deployment.model.max_context
    contexts = [c for c in _CONTEXTS if longest is None or c <= longest]
    return {context: largest_batch(deployment, context) for context in contexts}
