"""How fast planning is: start-up, one prediction, a sweep. Run: `python benchmarks/simulate.py [--sweep]`.

Prints each figure beside its target; exits 1 if one is missed. All figures are CPU seconds, of this process or of the
one started, and the best of several: on an idle machine that is the wall time, and a busy one changes it little.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from tempfile import TemporaryDirectory

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.simulate.scaling import with_experts
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import load_cluster
from wingspan.specs.execution import TRIED, DispatcherKind, ScheduleKind
from wingspan.specs.models import load_model
from wingspan.specs.workload import Context, LogNormalRouting, Workload

EP_SIZES = (16, 32, 64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PER_GPU = (1, 2, 4, 8, 16, 32)


def main() -> int:
    print(f"{'what':58} {'seconds':>9} {'target':>8}")
    figures = [
        ("import wingspan (process)", command("import wingspan"), 0.5),
        ("wingspan --help (process)", command("import sys; sys.argv[1:] = ['--help']", run=True), 0.5),
        ("wingspan simulate, DeepSeek-V3, EP 256 (process)", command(_SIMULATE, run=True), 0.45),
    ]
    for schedule in TRIED:
        made = deepseek(256, schedule)
        figures.append(
            (f"prediction, 61 layers, EP 256, {schedule.value}", best(lambda m=made: simulate(m)), 0.1)
        )
    for schedule in TRIED:
        wide = seed(1024, 1, 64, schedule)
        figures.append(
            (f"prediction, 61 layers, EP 1024, {schedule.value}", best(lambda m=wide: simulate(m)), 0.5)
        )
    for slots, dispatcher in product((1, 2, 4), (DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL)):
        copied = replicated(1024, slots, dispatcher)
        what = f"prediction, EP 1024 with replicas, {slots} slots, {dispatcher}"
        figures.append((what, best(lambda m=copied: simulate(m)), 0.5))
    if "--sweep" in sys.argv:
        points = len(BATCHES) * sum(per_gpu <= ep for ep, per_gpu in product(EP_SIZES, PER_GPU))
        figures.append((f"sweep of {points} points: EP x batch x experts per GPU", best(sweep, 1), 20.0))
    for name, seconds, target in figures:
        print(f"{name:58} {seconds:9.3f} {target:8.2f} {'' if seconds <= target else 'MISSED'}")
    return int(any(seconds > target for _, seconds, target in figures))


_SIMULATE = "import sys; sys.argv[1:] = ['simulate', 'deepseek-v3', '--ranks', '256', '-b', '128', '--json']"


def command(code: str, *, run: bool = False) -> float:
    """CPU seconds of a new process, the best of five; Python keeps its bytecode, as that of an installed package is."""
    text = code + ("; from wingspan.cli.main import main; main()" if run else "")

    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with TemporaryDirectory() as folder:
        for _ in range(5):
            before = children()
            subprocess.run(
                [sys.executable, "-c", text],
                check=True,
                stdout=subprocess.DEVNULL,
                env=kept | {"PYTHONPYCACHEPREFIX": folder},
            )
            times.append(children() - before)
    return min(times)


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of one call, the best of several."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def deepseek(ranks: int, schedule: ScheduleKind) -> Deployment:
    return Deployment(
        model=load_model("deepseek-v3"),
        cluster=load_cluster("h100-sxm").with_gpus(ranks),
        workload=Workload(
            tokens_per_gpu=128, context=Context(mean_tokens=4096), routing=LogNormalRouting(sigma=0.6)
        ),
        placement=PlacementSpec(ranks=ranks),
        options=Options(schedule=schedule),
    )


def replicated(ranks: int, slots: int, dispatcher: DispatcherKind) -> Deployment:
    """DeepSeek-V3 with several replicas of each expert, placed as part of the prediction."""
    return Deployment(
        model=load_model("deepseek-v3"),
        cluster=load_cluster("h100-sxm").with_gpus(ranks),
        workload=Workload(
            tokens_per_gpu=64, context=Context(mean_tokens=4096), routing=LogNormalRouting(sigma=0.6)
        ),
        placement=PlacementSpec(ranks=ranks, experts_per_rank=slots, strategy=Strategy.BALANCED),
        options=Options(dispatcher=dispatcher),
    )


def seed(ranks: int, per_gpu: int, batch: int, schedule: ScheduleKind) -> Deployment:
    """The seed's model with as many experts as there are slots."""
    return Deployment(
        model=with_experts(load_model("seed"), ranks * per_gpu),
        cluster=load_cluster("h100-sxm").with_gpus(ranks),
        workload=Workload(
            tokens_per_gpu=batch, context=Context(mean_tokens=1024), routing=LogNormalRouting(sigma=0.6)
        ),
        placement=PlacementSpec(ranks=ranks, experts_per_rank=per_gpu),
        options=Options(schedule=schedule),
    )


def sweep() -> None:
    """The seed's model with 16..1024 experts, every batch, every number of experts per GPU."""
    for ep, per_gpu, batch in product(EP_SIZES, PER_GPU, BATCHES):
        if per_gpu <= ep:
            simulate(packed(ep, per_gpu, batch))


def packed(ep: int, per_gpu: int, batch: int) -> Deployment:
    """`ep` experts, `per_gpu` of them on each GPU."""
    ranks = -(-ep // per_gpu)
    return Deployment(
        model=with_experts(load_model("seed"), ep),
        cluster=load_cluster("h100-sxm").with_gpus(ranks),
        workload=Workload(tokens_per_gpu=batch, context=Context(mean_tokens=1024)),
        placement=PlacementSpec(ranks=ranks, experts_per_rank=per_gpu),
    )


if __name__ == "__main__":
    sys.exit(main())
