"""What `plan` finds beside the best of an exhaustive search by `simulate`: `python benchmarks/plan_exhaustive.py`.

The exhaustive search knows nothing of the plan's: every EP size that divides the GPUs and fills whole nodes, every
number of slots from as few as hold the experts to twice as many (at most 4 counts), placed linearly and balanced,
attention over any part of a node, both dispatchers, all schedules, and batches of 1, 3/4 and 1/2 of the largest
that fits. `--service` does so for groups that serve requests within limits. `--name TEXT` takes the cases with that
text in their name. Exits 1 where the plan's best is worse, or its search takes over 3 CPU seconds (5 with `--service`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from pydantic import ValidationError

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.simulate.group_search import KERNELS
from wingspan.simulate.layouts import Kept
from wingspan.simulate.memory import largest_batch
from wingspan.simulate.search import best_of_each_ep, held_bytes, with_workload
from wingspan.simulate.service import (
    Offer,
    PhaseGroup,
    ServiceGoal,
    decode_group,
    prefill_group,
    split_offers,
)
from wingspan.simulate.service_plan import make_service_plan
from wingspan.simulate.step import predict, simulate
from wingspan.simulate.together import DeploymentTimes, Together
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import TRIED, ScheduleKind
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import WEIGHTS, AskedPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, Workload

_CASES = Path(__file__).parents[1] / "tests" / "simulate" / "cases"
_H20, _QWEN = str(_CASES / "h20.yaml"), str(_CASES / "qwen1.5-moe-a2.7b.config.json")
_PARTS = (1.0, 0.75, 0.5)
_TARGET_SECONDS = 3.0
_SERVICE_TARGET_SECONDS = 5.0
_TOLERANCE = 1e-3
"""Loads are drawn anew for each batch, so a step may be shorter than that of one sequence less."""


def exhaustive(
    template: Deployment, gpus: int, parts: Sequence[float] = _PARTS, most_slots: int = 4
) -> Iterator[tuple[float, Deployment]]:
    """Everything that fits, each with its tokens per second per GPU; `template` as `best_of_each_ep` takes it."""
    node, experts = template.cluster.gpus_per_node, template.model.experts.count
    start = template.model_copy(update={"cluster": template.cluster.with_gpus(gpus)})
    for ranks in range(1, gpus + 1):
        if gpus % ranks or (ranks % node and min(node, gpus) % ranks):
            continue
        least = -(-experts // ranks)
        for slots in range(least, min(2 * least, experts, least + most_slots - 1) + 1):
            for strategy in (Strategy.LINEAR, Strategy.BALANCED):
                placement = PlacementSpec(strategy=strategy, ranks=ranks, experts_per_rank=slots)
                yield from _ways(start.model_copy(update={"placement": placement}), parts)


def _ways(start: Deployment, parts: Sequence[float]) -> Iterator[tuple[float, Deployment]]:
    placement = start.build_placement()
    for group, dispatcher, schedule in product(range(1, start.cluster.gpus_per_node + 1), KERNELS, TRIED):
        options = Options(attention_ranks=group, dispatcher=dispatcher, schedule=schedule)
        way = start.model_copy(update={"options": options})
        try:
            Deployment.model_validate(way.model_dump())
        except ValidationError:
            continue
        largest = min(
            largest_batch(way, placement=placement), 1024 if way.workload.phase == "decode" else 32768
        )
        for batch in sorted({int(largest * part) for part in parts} - {0}):
            work = way.workload.model_copy(update={"tokens_per_gpu": batch})
            if schedule == ScheduleKind.TWO_BATCH and work.sequences_per_gpu < 2:
                continue
            tried = way.model_copy(update={"workload": work})
            report = simulate(tried)
            if max(report.peak_memory_bytes) <= way.cluster.gpu.memory_bytes:
                yield report.tokens_per_second / report.ranks, tried


def exhaustive_service(
    template: Deployment,
    gpus: int,
    goal: ServiceGoal,
    most_slots: int = 2,
    attention: Sequence[int] = (1, 2, 4, 8),
) -> Iterator[Offer]:
    """Every arrangement of groups that keeps the limits; knows only what one step takes, and how offers are made."""
    start = template.model_copy(update={"cluster": template.cluster.with_gpus(gpus)})
    node = template.cluster.gpus_per_node
    sizes = [n for n in range(1, gpus + 1) if n % node == 0 or node % n == 0]
    best: dict[str, dict[int, PhaseGroup]] = {"prefill": {}, "decode": {}}
    for size, phase in product(sizes, best):
        groups = [
            group
            for way in _group_ways(start, size, phase, goal, most_slots, attention)
            for group in _within_limits(way, goal)
        ]
        if groups:
            best[phase][size] = max(groups, key=lambda group: group.requests_per_second)
    for prefill, decode in product(best["prefill"].values(), best["decode"].values()):
        yield from (o for o in split_offers(goal, gpus, prefill, decode) if o.meets)
    for size in (size for size in sizes if gpus % size == 0):
        for way in _group_ways(start, size, "decode", goal, most_slots, attention):
            yield from _both_phases(way, gpus, goal)


def _group_ways(
    start: Deployment, ranks: int, phase: str, goal: ServiceGoal, most_slots: int, attention: Sequence[int]
) -> Iterator[Deployment]:
    experts = start.model.experts.count
    least = -(-experts // ranks)
    context = goal.mean_context if phase == "decode" else goal.prompt_tokens
    for slots, strategy, group, schedule in product(
        range(least, min(least + most_slots, experts + 1)),
        (Strategy.LINEAR, Strategy.BALANCED),
        attention,
        TRIED,
    ):
        way = with_workload(start, phase=phase, tokens_per_gpu=context, context=Context(mean_tokens=context))
        way = way.model_copy(
            update={
                "placement": PlacementSpec(strategy=strategy, ranks=ranks, experts_per_rank=slots),
                "options": Options(attention_ranks=group, schedule=schedule),
            }
        )
        try:
            yield Deployment.model_validate(way.model_dump())
        except ValidationError:
            continue


def _within_limits(way: Deployment, goal: ServiceGoal) -> Iterator[PhaseGroup]:
    """The largest batch that memory and the limit allow, and parts of it, each predicted whole."""
    decodes = way.workload.phase == "decode"
    placement = way.build_placement()
    held = goal.held_context if decodes else None
    most = min(largest_batch(way, held, placement), 1024 if decodes else max(32768, goal.prompt_tokens))
    transfer = goal.transfer_seconds(way) if decodes else 0.0
    limit = goal.prefill_step_seconds
    if decodes:
        limit = None if goal.tpot_seconds is None else goal.tpot_seconds - transfer / goal.decode_steps
    least = 1 if decodes else goal.prompt_tokens

    def group(batch: int) -> PhaseGroup | None:
        step = with_workload(way, tokens_per_gpu=batch)
        if way.options.schedule == ScheduleKind.TWO_BATCH and step.workload.sequences_per_gpu < 2:
            return None
        prediction = predict(step, placement)
        seconds, size = prediction.timeline.step_seconds, held_bytes(prediction, held)
        if size > way.cluster.gpu.memory_bytes or (limit is not None and seconds > limit):
            return None
        if decodes:
            return decode_group(step, seconds, size, goal, transfer)
        return prefill_group(step, seconds, size, goal)

    low, high = least - 1, most + 1
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if group(middle) else (low, middle)
    for batch in sorted({low, int(low * 0.75), low // 2, low // 4}):
        if batch >= least and (found := group(batch)):
            yield found


def _both_phases(way: Deployment, gpus: int, goal: ServiceGoal) -> Iterator[Offer]:
    if way.options.schedule.startswith(ScheduleKind.CHUNKS):
        return
    placement = way.build_placement()
    times = DeploymentTimes(
        way, goal, lambda step: predict(step, placement).timeline.step_seconds, exact=True
    )
    both = Together(way, placement, goal, gpus, times)
    low, high = 0, 1025
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        low, high = (middle, high) if both.best(both.at(middle)) else (low, middle)
    for batch in {low, int(low * 0.75), low // 2} - {0}:
        yield from (offer for offer in both.at(batch) if offer.meets)


def template(
    model: str, cluster: str, context: int, phase: str = "decode", precision: AskedPrecision | None = None
) -> Deployment:
    """What a plan starts from."""
    spec = load_model(model)
    work = {"phase": phase, "tokens_per_gpu": 64, "context": Context(mean_tokens=context)}
    return Deployment(
        model=spec,
        cluster=load_cluster(cluster),
        workload=Workload.model_validate(work | ({"precision": precision} if precision else {})),
        placement=PlacementSpec(ranks=1, experts_per_rank=spec.experts.count),
    )


_FOUR_BITS = AskedPrecision(**dict.fromkeys(WEIGHTS, Precision.MXFP4), activations=Precision.BF16)

CASES = {
    "DeepSeek-V3, 72 x H100": (template("deepseek-v3", "h100-sxm", 2050), 72),
    "DeepSeek-V3, 96 x H100": (template("deepseek-v3", "h100-sxm", 4096), 96),
    "DeepSeek-V3, 36 x GB200": (template("deepseek-v3", "gb200-nvl72", 4096), 36),
    "DeepSeek-V3, 72 x GB200": (template("deepseek-v3", "gb200-nvl72", 4096), 72),
    "DeepSeek-V3, 72 x H200": (template("deepseek-v3", "h200", 4096), 72),
    "DeepSeek-V3 in FP4, 3 x B200": (template("deepseek-v3", "b200", 4096, precision=_FOUR_BITS), 3),
    "DeepSeek-V3, 16 x H20": (template("deepseek-v3", _H20, 4096), 16),
    "DeepSeek-V3, 16 x H20, prefill": (template("deepseek-v3", _H20, 4096, "prefill"), 16),
    "Qwen1.5-MoE, 4 x H100": (template(_QWEN, "h100-sxm", 4096), 4),
    "Qwen1.5-MoE, 8 x H100": (template(_QWEN, "h100-sxm", 4096), 8),
}


SERVICE_CASES = {
    "DeepSeek-V3, 96 x H100, 2,000 + 500 tokens, 2 s, 50 ms": (
        template("deepseek-v3", "h100-sxm", 2048), 96, ServiceGoal(2000, 500, 2.0, 0.05)
    ),
    "DeepSeek-V3, 72 x GB200, 8,000 + 1,000 tokens, 1 s, 25 ms": (
        template("deepseek-v3", "gb200-nvl72", 2048), 72, ServiceGoal(8000, 1000, 1.0, 0.025)
    ),
    "Qwen1.5-MoE, 8 x H100, 1,000 + 200 tokens, 10 ms": (
        template(_QWEN, "h100-sxm", 2048), 8, ServiceGoal(1000, 200, None, 0.01)
    ),
}  # fmt: skip


def _service(asked: str) -> int:
    """The same for groups that serve requests; exits as `main`."""
    failed = 0
    for name, (start, gpus, goal) in SERVICE_CASES.items():
        if asked not in name:
            continue
        before = time.process_time()
        plan = make_service_plan(start, gpus, goal, Kept()).best
        seconds = time.process_time() - before
        tried = list(exhaustive_service(start, gpus, goal, attention=(1, 8)))
        best = max(tried, key=lambda offer: offer.order)
        found = plan.tokens_per_second_per_gpu if plan else 0.0
        missed = (
            found < best.tokens_per_second_per_gpu * (1 - _TOLERANCE) or seconds > _SERVICE_TARGET_SECONDS
        )
        failed += missed
        prefill = f"EP {best.prefill.ranks} x {best.prefill_groups}" if best.prefill else "together"
        print(
            f"{name:60} {found:8,.1f} {seconds:6.2f} {best.tokens_per_second_per_gpu:8,.1f} {len(tried):6}  decode EP "
            f"{best.decode.ranks} x {best.decode_groups}, batch {best.decode.batch}; prefill {prefill}"
            f"{'  MISSED' if missed else ''}",
            flush=True,
        )
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="", help="only the cases with this text in their name")
    parser.add_argument("--service", action="store_true", help="groups for requests instead of steps")
    arguments = parser.parse_args()
    asked = arguments.name
    if arguments.service:
        return _service(asked)
    print(f"{'case':32} {'plan':>8} {'CPU s':>6} {'of all':>8} {'tried':>6}  the exhaustive search's best")
    failed = 0
    for name, (start, gpus) in CASES.items():
        if asked not in name:
            continue
        before = time.process_time()
        plan = max(c.tokens_per_second_per_gpu for c in best_of_each_ep(start, gpus, fixed_batch=False))
        seconds = time.process_time() - before
        tried = list(exhaustive(start, gpus))
        best, where = max(tried, key=lambda pair: pair[0])
        missed = plan < best * (1 - 1e-9) or seconds > _TARGET_SECONDS
        failed += missed
        options = where.options
        print(
            f"{name:32} {plan:8,.0f} {seconds:6.2f} {best:8,.0f} {len(tried):6}  EP {where.ranks}, "
            f"{where.placement.experts_per_rank} slots, attention {options.attention_ranks}, "
            f"{where.dispatcher.value}, {options.schedule}, batch {where.workload.tokens_per_gpu}"
            f"{'  MISSED' if missed else ''}",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
