"""What `plan` finds beside the best of an exhaustive search by `simulate`: `python benchmarks/plan_exhaustive.py`.

The exhaustive search knows nothing of the plan's: every EP size that divides the GPUs and fills whole nodes, every
number of slots from as few as hold the experts to twice as many (at most 4 counts), placed linearly and balanced,
attention over any part of a node, both dispatchers, all schedules, and batches of 1, 3/4 and 1/2 of the largest
that fits. `--name TEXT` takes the cases with that text in their name. Exits 1 where the plan's best is worse, or its
search takes over 3 CPU seconds.
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
from wingspan.simulate.memory import largest_batch
from wingspan.simulate.search import best_of_each_ep
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import ScheduleKind
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, Workload

_CASES = Path(__file__).parents[1] / "tests" / "simulate" / "cases"
_H20, _QWEN = str(_CASES / "h20.yaml"), str(_CASES / "qwen1.5-moe-a2.7b.config.json")
_PARTS = (1.0, 0.75, 0.5)
_TARGET_SECONDS = 3.0


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
    for group, dispatcher, schedule in product(
        range(1, start.cluster.gpus_per_node + 1), KERNELS, ScheduleKind
    ):
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
            if schedule is ScheduleKind.TWO_BATCH and work.sequences_per_gpu < 2:
                continue
            tried = way.model_copy(update={"workload": work})
            report = simulate(tried)
            if max(report.peak_memory_bytes) <= way.cluster.gpu.memory_bytes:
                yield report.tokens_per_second / report.ranks, tried


def template(
    model: str, cluster: str, context: int, phase: str = "decode", weights: str | None = None
) -> Deployment:
    """What a plan starts from."""
    spec = load_model(model)
    work = {"phase": phase, "tokens_per_gpu": 64, "context": Context(mean_tokens=context), "weights": weights}
    return Deployment(
        model=spec,
        cluster=load_cluster(cluster),
        workload=Workload.model_validate(work),
        placement=PlacementSpec(ranks=1, experts_per_rank=spec.experts.count),
    )


CASES = {
    "DeepSeek-V3, 72 x H100": (template("deepseek-v3", "h100-sxm", 2050), 72),
    "DeepSeek-V3, 96 x H100": (template("deepseek-v3", "h100-sxm", 4096), 96),
    "DeepSeek-V3, 36 x GB200": (template("deepseek-v3", "gb200-nvl72", 4096), 36),
    "DeepSeek-V3, 72 x GB200": (template("deepseek-v3", "gb200-nvl72", 4096), 72),
    "DeepSeek-V3, 72 x H200": (template("deepseek-v3", "h200", 4096), 72),
    "DeepSeek-V3 in FP4, 3 x B200": (template("deepseek-v3", "b200", 4096, weights="fp4"), 3),
    "DeepSeek-V3, 16 x H20": (template("deepseek-v3", _H20, 4096), 16),
    "DeepSeek-V3, 16 x H20, prefill": (template("deepseek-v3", _H20, 4096, "prefill"), 16),
    "Qwen1.5-MoE, 4 x H100": (template(_QWEN, "h100-sxm", 4096), 4),
    "Qwen1.5-MoE, 8 x H100": (template(_QWEN, "h100-sxm", 4096), 8),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="", help="only the cases with this text in their name")
    asked = parser.parse_args().name
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
