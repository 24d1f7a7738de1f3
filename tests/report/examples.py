"""Results as a step and its timeline would give them, made by hand: small, uneven, with every field filled."""

from __future__ import annotations

import numpy as np

from tests.simulate.serving.steps import grid_times, group
from wingspan.schedule.result import LinkUse, Operation, Span, StepReport, Stream
from wingspan.schedule.serving_result import ServingLimits, ServingReport
from wingspan.schedule.sweep_result import SweepAxis, SweepPoint, SweepResult
from wingspan.simulate.serving.engine import Fleet, serve
from wingspan.simulate.serving.measure import described, measure
from wingspan.specs.memory import MemoryPart
from wingspan.specs.requests import poisson_requests

COMPUTE_US = {Operation.ATTENTION: 180.0, Operation.GATE: 12.0, Operation.EXPERT: 150.0}
TRAVEL_US = {Operation.DISPATCH: 90.0, Operation.COMBINE: 130.0}


def step(ranks: int = 16, layers: int = 8, dense: int = 1, seed: int = 0) -> tuple[StepReport, list[Span]]:
    """A sequential step: every rank's experts take as long as their load says, all wait for the slowest."""
    random = np.random.default_rng(seed)
    load_LE = random.multinomial(ranks * 512, random.dirichlet([8.0] * ranks), size=layers - dense)
    spans: list[Span] = []
    busy: dict[Operation, list[float]] = {}
    exposed = [0.0] * ranks
    now = 0.0

    def add(rank: int, operation: Operation, layer: int | None, start: float, seconds: float) -> None:
        travels = operation in TRAVEL_US
        size = 4_000_000 if travels else None
        stream = Stream.COMMUNICATION if travels else Stream.COMPUTE
        spans.append(
            Span(
                rank=rank, stream=stream, operation=operation, start_seconds=start, end_seconds=start + seconds,
                layer=layer, micro_batch=0, chunk=0, sent_bytes=size, received_bytes=size,
            )
        )  # fmt: skip
        busy.setdefault(operation, [0.0] * ranks)[rank] += seconds

    for layer in range(layers):
        for operation in (Operation.ATTENTION, Operation.DENSE if layer < dense else Operation.GATE):
            length = COMPUTE_US.get(operation, 60.0) * 1e-6
            for rank in range(ranks):
                add(rank, operation, layer, now, length)
            now += length
        if layer < dense:
            continue
        share = load_LE[layer - dense] / load_LE[layer - dense].mean()
        for operation in (Operation.DISPATCH, Operation.EXPERT, Operation.COMBINE):
            lengths = [
                (COMPUTE_US | TRAVEL_US)[operation]
                * 1e-6
                * (share[r] if operation is Operation.EXPERT else 1.0)
                for r in range(ranks)
            ]
            for rank in range(ranks):
                add(rank, operation, layer, now, lengths[rank])
                exposed[rank] += lengths[rank] if operation in TRAVEL_US else max(lengths) - lengths[rank]
            now += max(lengths)
    tokens = ranks * 64
    busy_total = [sum(seconds[r] for seconds in busy.values()) for r in range(ranks)]
    busy[Operation.WAIT] = [now - seconds for seconds in busy_total]
    report = StepReport(
        source="predicted",
        phase="decode",
        ranks=ranks,
        ranks_per_node=8,
        experts_per_rank=1,
        schedule="sequential",
        tokens=tokens,
        step_seconds=now,
        tokens_per_second=tokens / now,
        operation_seconds=busy,
        exposed_communication_seconds=exposed,
        sent_within_node_bytes=[14_000_000 + 300_000 * (r % 5) for r in range(ranks)],
        sent_across_nodes_bytes=[30_000_000 + 900_000 * (r % 3) for r in range(ranks)],
        received_within_node_bytes=[14_000_000] * ranks,
        received_across_nodes_bytes=[30_000_000] * ranks,
        load_tokens=load_LE.tolist(),
        imbalance=float((load_LE.max(1) / load_LE.mean(1)).mean()),
        memory_bytes={
            MemoryPart.ATTENTION: [29_000_000_000] * ranks,
            MemoryPart.EXPERTS: [3_400_000_000] * ranks,
            MemoryPart.KV_CACHE: [12_000_000_000 + 40_000_000 * r for r in range(ranks)],
            MemoryPart.BUFFERS: [2_100_000_000] * ranks,
        },
        peak_memory_bytes=[46_500_000_000 + 40_000_000 * r for r in range(ranks)],
        links=[
            LinkUse(link="scale_up", busiest_bytes=15.2e6, total_bytes=2.3e8, utilisation=0.06),
            LinkUse(link="scale_out", busiest_bytes=31.8e6, total_bytes=4.9e8, utilisation=0.31),
        ],
        utilisation={"compute": 0.22, "memory_bandwidth": 0.41},
        slowest_rank=int(np.argmax(busy_total)),
        slowest_reason="its experts got the most tokens",
        notes=["uniform bandwidth on every network card", "no other traffic on the links"],
    )
    return report, spans


CONDITIONS = {
    "Model": "deepseek-v3, 61 layers, 256 experts, top-8",
    "Cluster": "h100-sxm, 2 nodes of 8 GPUs, 50 GB/s a card",
    "Workload": "decode, 64 sequences per GPU, context 4096",
    "Routing": "power law, exponent 0.4, seed 0",
}


def sweep() -> SweepResult:
    """EP size by network: throughput per GPU falls with EP on the slower one; its largest point does not fit."""
    sizes, networks = [16, 32, 64, 128, 256], ["ideal", "h100-sxm"]
    points = []
    for network in networks:
        for ep in sizes:
            lost = (0.01 if network == "ideal" else 0.09) * np.log2(ep / 16)
            seconds = 0.02 * (1 + float(lost))
            points.append(
                SweepPoint(
                    at={"cluster": network, "ranks": ep},
                    ranks=ep,
                    experts_per_rank=1,
                    schedule="sequential",
                    tokens=64 * ep,
                    step_seconds=seconds,
                    tokens_per_second=64 * ep / seconds,
                    tokens_per_second_per_gpu=64 / seconds,
                    parallel_efficiency=0.02 / seconds,
                    exposed_share=float(lost) / 2,
                    imbalance=1.0 + float(lost),
                    peak_memory_bytes=60_000_000_000 + ep * 10_000_000,
                    fits=not (network == "ideal" and ep == 256),
                    bound_by="expert",
                )
            )
    return SweepResult(
        conditions=CONDITIONS,
        axes=[
            SweepAxis(name="cluster", label="cluster", values=list(networks)),
            SweepAxis(name="ranks", label="EP size", values=list(sizes)),
        ],
        points=points,
        findings=["On h100-sxm the efficiency falls below 90 % beyond EP 32."],
    )


def serving(loads: tuple[float, ...] = (1, 4, 16, 64, 128, 256)) -> ServingReport:
    """A small group under rising load, simulated with step times made by hand."""
    spec = group(grid_times(), homes=8, kv_tokens=20_000, sequences=64, budget=512)
    limits = ServingLimits(ttft_p99_seconds=0.5, tpot_p99_seconds=0.05)
    base = poisson_requests(1.0, 600, 400, 60, spread=0.5, seed=1)
    points = [measure(serve(base.at_rate(load), Fleet(spec)), load, limits) for load in loads]
    good = [point.offered_requests_per_second for point in points if point.meets_limits]
    return ServingReport(
        conditions=CONDITIONS,
        ranks=8,
        groups=[described(spec)],
        limits=limits,
        points=points,
        highest_load_requests_per_second=good[-1] if good else None,
        notes=["KV cache is reserved for prompt and output when a request is admitted"],
    )
