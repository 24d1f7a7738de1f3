"""One expert per GPU against several."""

from __future__ import annotations

from collections.abc import Iterator

from wingspan.deployment import Deployment, PlacementSpec
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import CONTEXT
from wingspan.simulate.scaling import (
    with_experts,
)
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import Context, Workload

_PER_GPU = (1, 2, 4, 8, 16, 32)


def baseline_claims(model: ModelSpec, ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    """Throughput per GPU against one expert per GPU, and what colocation saves on the network."""
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
    wide = with_experts(model, 256)
    reports = {k: simulate(_packed(wide, real, "decode", 128, k)) for k in (1, 8)}
    crossing = {k: sum(report.sent_across_nodes_bytes) / report.tokens for k, report in reports.items()}
    yield Claim(
        "several experts per GPU: communication reduced by colocation (5.1)",
        "reduced",
        crossing[8] / crossing[1] * 100,
        "% of the bytes a token sends between nodes, 8 experts per GPU against 1, of 256 experts",
        crossing[8] < crossing[1],
        [
            f"{real.name}, flat dispatch: {crossing[8] / 1e6:.1f} MB a token on 32 GPUs, {crossing[1] / 1e6:.1f} MB "
            "on 256; little is saved before an EP group is a few nodes"
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
            context=Context(mean_tokens=CONTEXT),
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
