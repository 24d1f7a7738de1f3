"""The seed's claims (DESIGN.md section 4), each computed, with the conditions under which it holds.

The claims that depend on the network, the batch, the routing's skew or the EP size are predicted at every point of
a grid over these four; the seed names no batch and no skew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from wingspan.cost.exchange import Method, exchange_seconds, row_bytes, uniform_traffic
from wingspan.deployment import Deployment, Options, PlacementSpec
from wingspan.schedule.result import Operation, StepReport
from wingspan.simulate.memory import largest_batch, longest_context, memory_use
from wingspan.simulate.scaling import (
    exposed_transfer_share,
    fastest_schedule,
    one_expert_per_gpu,
    parallel_efficiency,
)
from wingspan.simulate.step import simulate
from wingspan.simulate.ways_out import ways_out
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, LogNormalRouting, Routing, UniformRouting, Workload

_EP = (16, 64, 256)
_WORK = (("decode", 1), ("decode", 16), ("decode", 128), ("prefill", 4096))
_SKEW: tuple[Routing, ...] = (UniformRouting(), LogNormalRouting(sigma=0.6))
_CONTEXT = 1024
_PER_GPU = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Claim:
    """One row: what the seed says, and what comes out."""

    claim: str
    said: str
    computed: float
    unit: str
    holds: bool
    conditions: list[str]


@dataclass(frozen=True)
class Point:
    """One prediction of the grid: the fastest schedule of that network, work, skew and EP size."""

    network: str
    phase: str
    tokens: int
    skew: str
    ep: int
    deployment: Deployment
    report: StepReport


def claims(plain: ModelSpec, gated: ModelSpec, ideal: Cluster, real: Cluster) -> list[Claim]:
    """Every row of the table.

    Args:
        plain: the seed's model, two matrices per expert.
        gated: the same with three.
        ideal: the seed's hardware as written.
        real: nodes that can be bought.
    """
    points = grid(plain, (ideal, real))
    return [
        *_sizes(plain, gated),
        *_hardware(ideal, real),
        *_memory(plain, ideal, real),
        *_network(plain, ideal, real, points),
        *_scaling(points),
        *_baseline(plain, ideal, real),
        _busy(points),
    ]


def grid(model: ModelSpec, networks: tuple[Cluster, ...]) -> list[Point]:
    """Predictions over network, work, skew and EP size, one expert per GPU, each with its fastest schedule."""
    points = []
    for cluster, (phase, tokens), routing, ep in product(networks, _WORK, _SKEW, _EP):
        workload = Workload(
            phase="decode" if phase == "decode" else "prefill",
            tokens_per_gpu=tokens,
            context=Context(mean_tokens=_CONTEXT),
            routing=routing,
        )
        deployment, report = fastest_schedule(one_expert_per_gpu(model, cluster, workload, ep))
        skew = "uniform" if routing.kind == "uniform" else f"skewed ({report.imbalance:.1f} x)"
        points.append(Point(cluster.name, phase, tokens, skew, ep, deployment, report))
    return points


def _sizes(plain: ModelSpec, gated: ModelSpec) -> Iterator[Claim]:
    bf16 = Precision.BF16.bytes
    expert, gated_expert = plain.parameters.expert * bf16, gated.parameters.expert * bf16
    yield Claim(
        "size of one expert (3.2)",
        "58.72 MB",
        expert / 1e6,
        "MB",
        round(expert / 1e6, 2) == 58.72,
        [
            "two matrices (plain MLP) in BF16: holds",
            f"three matrices (gated): {gated_expert / 1e6:.2f} MB, does not hold",
        ],
    )
    dense, moe = len(plain.dense_layers), len(plain.moe_layers)
    yield Claim(
        "layers (1.1)",
        "61 = 3 dense + 58 MoE",
        float(plain.layers),
        "layers",
        (plain.layers, dense, moe) == (61, 3, 58),
        [
            f"preset {plain.name}: {dense} dense, {moe} MoE; experts, top-k and vocabulary are left open by the seed"
        ],
    )
    attention = plain.parameters.attention * bf16
    yield Claim(
        "attention, 128 heads x 128 (1.2)",
        "939.5 MB a layer",
        attention / plain.layers / 1e6,
        "MB",
        round(attention / plain.layers / 1e6, 1) == 939.5,
        [f"replicated on each rank: {attention / 1e9:.2f} GB for {plain.layers} layers in BF16"],
    )


def _hardware(ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    sustained = ideal.gpu.sustained_flops(Precision.BF16)
    yield Claim(
        "practical performance per GPU (3.1)",
        "240 TFLOPS",
        sustained / 1e12,
        "TFLOPS",
        abs(sustained / 1e12 - 240) < 0.5,
        [
            f"{ideal.name}: input, 400 TFLOPS x 60 % MFU",
            f"{real.name}: {real.gpu.sustained_flops(Precision.BF16) / 1e12:.0f} TFLOPS in BF16",
        ],
    )
    memory = ideal.gpu.sustained_memory_bytes_per_second
    yield Claim(
        "memory bandwidth, 80 % of 1.8 TB/s (1.3)",
        "1.44 TB/s",
        memory / 1e12,
        "TB/s",
        abs(memory / 1e12 - 1.44) < 0.005,
        [f"{real.name}: {real.gpu.sustained_memory_bytes_per_second / 1e12:.2f} TB/s"],
    )
    network = real.scale_out.sustained_bytes_per_second
    yield Claim(
        "network bandwidth (2.2, 3.3)",
        "1.44 TB/s",
        network / 1e12,
        "TB/s",
        network >= 1.44e12,
        [
            f"{ideal.name}: {ideal.scale_out.sustained_bytes_per_second / 1e12:.2f} TB/s, holds by assumption "
            "(the seed takes the memory's figure)",
            f"{real.name}: {real.scale_up.sustained_bytes_per_second / 1e9:.0f} GB/s inside a node, "
            f"{network / 1e9:.0f} GB/s between nodes, per GPU and direction: does not hold",
        ],
    )


def _memory(model: ModelSpec, ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    work = Workload(tokens_per_gpu=1, context=Context(mean_tokens=1), kv=Precision.BF16)
    bare = one_expert_per_gpu(model, ideal, work, 64, Options(reserve_share=0.0))
    parts = {name: float(size.max()) for name, size in memory_use(bare).parts.items()}
    named = parts["attention"] + parts["experts"] + parts["dense"]
    weights = named + parts["embedding and head"] + parts["routers and norms"]
    capacity = ideal.gpu.memory_bytes
    per_token = model.kv_values_per_token * Precision.BF16.bytes
    room = longest_context(bare)
    yield Claim(
        "peak memory per GPU (3.2)",
        "<= 64 GB",
        named / 1e9,
        "GB",
        named <= capacity,
        [
            f"attention {parts['attention'] / 1e9:.2f} + experts {parts['experts'] / 1e9:.2f} + dense layers "
            f"{parts['dense'] / 1e9:.2f} GB: holds for these weights alone",
            f"with embedding, head, routers and norms {weights / 1e9:.2f} GB: {(capacity - weights) / 1e9:.2f} GB left "
            f"for activations, buffers and a cache of {per_token / 1e6:.1f} MB a token: one sequence of {room} tokens",
            *_ways(model, ideal),
            f"{real.name} ({real.gpu.memory_bytes / 1e9:.0f} GB): {_room(model, real)}",
        ],
    )
    yield Claim(
        "memory utilisation (3.2)",
        "> 95 %",
        named / capacity * 100,
        "%",
        named / capacity > 0.95,
        [
            f"of {capacity / 1e9:.0f} GB, by weights that are replicated; attention alone is "
            f"{parts['attention'] / capacity:.0%}",
            f"{real.name}: {named / real.gpu.memory_bytes:.0%} of {real.gpu.memory_bytes / 1e9:.0f} GB by weights",
        ],
    )


def _ways(model: ModelSpec, cluster: Cluster) -> list[str]:
    work = Workload(tokens_per_gpu=16, context=Context(mean_tokens=_CONTEXT))
    wanted = one_expert_per_gpu(model, cluster, work, 64)
    return [
        f"16 sequences of {_CONTEXT} tokens fit if: {way.text} ({way.peak_bytes / 1e9:.1f} GB)"
        for way in ways_out(wanted)
    ]


def _room(model: ModelSpec, cluster: Cluster) -> str:
    work = Workload(tokens_per_gpu=1, context=Context(mean_tokens=_CONTEXT))
    return f"room for {largest_batch(one_expert_per_gpu(model, cluster, work, 64))} sequences of {_CONTEXT} tokens"


def _network(model: ModelSpec, ideal: Cluster, real: Cluster, points: list[Point]) -> Iterator[Claim]:
    share = [exposed_transfer_share(p.report) for p in points]
    reference = _reference(points, ideal.name)
    yield Claim(
        "communication overhead (3.3)",
        "< 5 % of total time",
        exposed_transfer_share(reference.report) * 100,
        "%",
        exposed_transfer_share(reference.report) < 0.05,
        _where(points, [s < 0.05 for s in share], [f"{s:.1%}" for s in share]),
    )
    one = {c.name: _one_token_seconds(model, c) for c in (ideal, real)}
    conditions = [f"one token's row of {model.hidden} values, alone: " + _both(one, 1e6, "us")]
    for cluster in (ideal, real):
        most = _most_tokens_within(model, cluster, 100e-6)
        conditions.append(
            f"{cluster.name}: a whole dispatch at EP 64, top-{model.experts.per_token}, stays below 100 us up to "
            f"{most} tokens per GPU"
        )
    yield Claim(
        "latency impact per token transfer (3.3)",
        "< 100 us",
        one[ideal.name] * 1e6,
        "us",
        one[ideal.name] < 100e-6,
        conditions,
    )


def _one_token_seconds(model: ModelSpec, cluster: Cluster) -> float:
    row = row_bytes(model.hidden, Precision.BF16)
    return row / cluster.scale_out.sustained_bytes_per_second + cluster.scale_out.latency_seconds


def _most_tokens_within(model: ModelSpec, cluster: Cluster, limit: float) -> int:
    """The largest power of two of tokens per GPU whose dispatch stays within `limit` seconds."""
    sized = cluster.with_gpus(64)
    tokens = 2.0 ** np.arange(0, 15)
    row = row_bytes(model.hidden, Precision.BF16)
    way = uniform_traffic(sized, 64, tokens, row, 64, model.experts.per_token, Method.LOW_LATENCY)
    within = exchange_seconds(sized, way, Method.LOW_LATENCY).seconds < limit
    return int(tokens[within].max(initial=0))


def _both(values: dict[str, float], scale: float, unit: str) -> str:
    return ", ".join(f"{name} {value * scale:.2f} {unit}" for name, value in values.items())


def _scaling(points: list[Point]) -> Iterator[Claim]:
    efficiency = [parallel_efficiency(p.deployment, p.report) for p in points]
    reference = _reference(points, points[0].network)
    yield Claim(
        "parallel efficiency at EP 64 (4.1)",
        "> 90 %",
        efficiency[points.index(reference)] * 100,
        "%",
        efficiency[points.index(reference)] > 0.9,
        _where(points, [e > 0.9 for e in efficiency], [f"{e:.0%}" for e in efficiency]),
    )
    smallest = {_series(p): p.report for p in points if p.ep == min(_EP)}
    step = [p.report.step_seconds / smallest[_series(p)].step_seconds for p in points]
    wide = _largest(points)
    scaled = [1 / s for s in step]
    at = points.index(wide)
    beyond = [p.ep > min(_EP) for p in points]
    yield Claim(
        "token throughput scales linearly (4.2)",
        "linear with experts",
        scaled[at] * 100,
        f"% of linear, EP {min(_EP)} to {max(_EP)}",
        scaled[at] > 0.9,
        _where(points, [v > 0.9 for v in scaled], [f"{v:.0%} of linear" for v in scaled], beyond),
    )
    yield Claim(
        "latency consistent regardless of cluster size (4.2)",
        "constant",
        step[at],
        f"x the step at EP {min(_EP)}",
        step[at] < 1.1,
        _where(points, [v < 1.1 for v in step], [f"{v:.2f} x" for v in step], beyond),
    )
    bound = [_bottleneck(p.report) for p in points]
    network = [b == "network" for b in bound]
    at_scale = [p.ep == max(_EP) for p in points]
    yield Claim(
        "bottleneck: network bandwidth at scale (4.2)",
        "network",
        float(np.mean([n for n, chosen in zip(network, at_scale, strict=True) if chosen])) * 100,
        f"% of cases at EP {max(_EP)}",
        all(n for n, chosen in zip(network, at_scale, strict=True) if chosen),
        _where(points, network, bound, at_scale),
    )


def _series(point: Point) -> tuple[str, str, int, bool]:
    return point.network, point.phase, point.tokens, point.skew == "uniform"


def _reference(points: list[Point], network: str) -> Point:
    """Where a claim that names no work is judged: its network, EP 64, uniform, 128 sequences per GPU in decode."""
    return next(
        p
        for p in points
        if (p.network, p.ep, p.phase, p.tokens, p.skew) == (network, 64, "decode", 128, "uniform")
    )


def _largest(points: list[Point]) -> Point:
    reference = _reference(points, points[0].network)
    return next(p for p in points if p.ep == max(_EP) and _series(p) == _series(reference))


def _bottleneck(report: StepReport) -> str:
    """What takes the largest part of the mean rank's step."""
    mean = {op: float(np.mean(seconds)) for op, seconds in report.operation_seconds.items()}
    waiting = mean.pop(Operation.WAIT, 0.0)
    transfers = report.overhead * report.step_seconds - waiting
    for operation in (Operation.DISPATCH, Operation.COMBINE, Operation.ALL_GATHER, Operation.REDUCE_SCATTER):
        mean.pop(operation, None)
    parts = {"network": transfers, "waiting for the fullest rank": waiting}
    parts |= {operation.value: seconds for operation, seconds in mean.items()}
    return max(parts, key=lambda part: parts[part])


def _baseline(model: ModelSpec, ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    per_gpu = {
        (cluster.name, tokens): _throughput(model, cluster, phase, tokens)
        for cluster in (ideal, real)
        for phase, tokens in (("decode", 8), ("decode", 128), ("prefill", 4096))
    }
    small = per_gpu[ideal.name, 8]
    kept = small[8] / small[1]
    yield Claim(
        "several experts per GPU: diminishing returns beyond 4-8 (5.1)",
        "worse beyond 4-8",
        kept * 100,
        "% of one expert per GPU's throughput per GPU, at 8 experts and 8 sequences per GPU",
        kept < 0.9,
        [_crossover(name, tokens, series) for (name, tokens), series in per_gpu.items()],
    )
    ahead = {key: series[1] / series[8] for key, series in per_gpu.items()}
    yield Claim(
        "one expert per GPU is better than eight (5.2)",
        "better",
        ahead[ideal.name, 8],
        "x the throughput per GPU, 8 sequences per GPU",
        ahead[ideal.name, 8] > 1,
        [
            f"{name}, {_work_name(tokens)}: {ratio:.2f} x, {'holds' if ratio > 1 else 'does not hold'}"
            for (name, tokens), ratio in ahead.items()
        ],
    )
    report = simulate(_packed(model, ideal, "decode", 128, 1))
    crossing = [sum(simulate(_packed(model, real, "decode", 128, k)).sent_across_nodes_bytes) for k in (1, 8)]
    yield Claim(
        "several experts per GPU: communication reduced by colocation (5.1)",
        "reduced",
        crossing[1] / max(crossing[0], 1) * 100,
        f"% of the bytes between nodes, 8 experts per GPU against 1, {report.ranks} experts",
        crossing[1] < crossing[0],
        [
            f"{real.name}: {crossing[1] / 1e9:.1f} GB against {crossing[0] / 1e9:.1f} GB a step, at 1/8 of the GPUs"
        ],
    )


def _throughput(model: ModelSpec, cluster: Cluster, phase: str, tokens: int) -> dict[int, float]:
    """Tokens per second per GPU for each number of experts per GPU: 64 experts, the same batch on each GPU."""
    reports = {k: simulate(_packed(model, cluster, phase, tokens, k)) for k in _PER_GPU}
    return {k: report.tokens_per_second / report.ranks for k, report in reports.items()}


def _packed(model: ModelSpec, cluster: Cluster, phase: str, tokens: int, per_gpu: int) -> Deployment:
    ranks = -(-model.experts.count // per_gpu)
    return Deployment(
        model=model,
        cluster=cluster.with_gpus(ranks),
        workload=Workload(
            phase="decode" if phase == "decode" else "prefill",
            tokens_per_gpu=tokens,
            context=Context(mean_tokens=_CONTEXT),
        ),
        placement=PlacementSpec(ranks=ranks, experts_per_rank=per_gpu),
    )


def _crossover(name: str, tokens: int, series: dict[int, float]) -> str:
    relative = {k: value / series[1] for k, value in series.items()}
    text = ", ".join(f"{k}: {value:.0%}" for k, value in relative.items())
    below = [k for k, value in relative.items() if value < 0.9]
    best = max(relative, key=lambda k: relative[k])
    verdict = f"below 90 % from {below[0]} experts per GPU" if below else "never below 90 %"
    return f"{name}, {_work_name(tokens)}: {text}; best at {best}, {verdict}"


def _work_name(tokens: int) -> str:
    return "prefill of 4096 tokens per GPU" if tokens == 4096 else f"decode of {tokens} sequences per GPU"


def _busy(points: list[Point]) -> Claim:
    busy = [1 - p.report.overhead for p in points]
    reference = _reference(points, points[0].network)
    at = points.index(reference)
    arithmetic = reference.report.utilisation
    return Claim(
        "GPU utilisation (5.2)",
        "> 95 %",
        busy[at] * 100,
        "% of the step computing",
        busy[at] > 0.95,
        [
            *_where(points, [b > 0.95 for b in busy], [f"{b:.0%}" for b in busy]),
            f"as shares of peak at the same point: arithmetic {arithmetic['compute']:.0%}, memory bandwidth "
            f"{arithmetic['memory bandwidth']:.0%}",
        ],
    )


def _where(
    points: list[Point], holds: list[bool], values: list[str], considered: list[bool] | None = None
) -> list[str]:
    """One line per network and skew: at which EP sizes and batches it holds, with the value where it does not."""
    use = considered or [True] * len(points)
    rows = [(p, h, v) for p, h, v, used in zip(points, holds, values, use, strict=True) if used]
    lines = []
    for network, uniform in product(dict.fromkeys(p.network for p, *_ in rows), (True, False)):
        mine = [(p, h, v) for p, h, v in rows if p.network == network and (p.skew == "uniform") is uniform]
        skew = "uniform" if uniform else "skewed"
        good = [(p, v) for p, h, v in mine if h]
        if len(good) == len(mine):
            lines.append(f"{network}, {skew}: holds at all {len(mine)} points")
            continue
        if not good:
            lines.append(
                f"{network}, {skew}: at none of {len(mine)} points; {_cells([(p, v) for p, _, v in mine])}"
            )
            continue
        bad = [(p, v) for p, h, v in mine if not h]
        lines.append(f"{network}, {skew}: holds at {len(good)} of {len(mine)} points, not at {_cells(bad)}")
    return lines


def _cells(cells: list[tuple[Point, str]]) -> str:
    """`EP 16 (decode 1: 12%, ...); EP 64 (...)`."""
    by_ep: dict[int, list[str]] = {}
    for point, value in cells:
        by_ep.setdefault(point.ep, []).append(f"{point.phase} {point.tokens}: {value}")
    return "; ".join(f"EP {ep} ({', '.join(texts)})" for ep, texts in by_ep.items())
