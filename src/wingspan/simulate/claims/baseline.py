"""One expert per GPU against several."""

from __future__ import annotations

from collections.abc import Iterator

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec
from wingspan.schedule.result import StepReport
from wingspan.simulate.claims.claim import Claim
from wingspan.simulate.claims.grid import ATTENTION_RANKS, CONTEXT, OWN_SEQUENCES
from wingspan.simulate.scaling import (
    with_experts,
)
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster
from wingspan.specs.model import ModelSpec
from wingspan.specs.workload import Context, Workload

_PER_GPU = (1, 2, 4, 8, 16, 32)
_SEQUENCES = 4
"""Per GPU: what fits on 64 GB beside eight experts of every layer."""


def baseline_claims(model: ModelSpec, ideal: Cluster, real: Cluster) -> Iterator[Claim]:
    """Throughput per GPU against one expert per GPU, and what colocation saves on the network."""
    found = {
        (cluster.name, tokens): _throughput(model, cluster, phase, tokens)
        for cluster in (ideal, real)
        for phase, tokens in (("decode", _SEQUENCES), ("decode", OWN_SEQUENCES), ("prefill", 4096))
    }
    per_gpu = {
        key: {k: r.tokens_per_second / r.ranks for k, r in reports.items()} for key, reports in found.items()
    }
    fitting = {key: _fitting(reports, ideal, real, key[0]) for key, reports in found.items()}
    small, key = per_gpu[ideal.name, _SEQUENCES], (ideal.name, _SEQUENCES)
    own_key = (ideal.name, OWN_SEQUENCES)
    kept = small[8] / small[1]
    yield Claim(
        "several experts per GPU: diminishing returns beyond 4-8",
        "worse beyond 4-8",
        kept * 100,
        f"% of one expert per GPU's throughput per GPU, at 8 experts and {_SEQUENCES} sequences per GPU",
        kept < 0.9,
        [_crossover(*key, series, fitting[key]) for key, series in per_gpu.items()],
        {1, 8} <= fitting[key],
        per_gpu[own_key][8] / per_gpu[own_key][1] * 100,
        {1, 8} <= fitting[own_key],
    )
    ahead = {key: series[1] / series[8] for key, series in per_gpu.items()}
    yield Claim(
        "one expert per GPU is better than eight",
        "better",
        ahead[key],
        f"x the throughput per GPU, {_SEQUENCES} sequences per GPU",
        ahead[key] > 1,
        [
            f"{name}, {_work_name(tokens)}{'' if {1, 8} <= fitting[name, tokens] else ' (does not fit)'}: "
            f"{ratio:.2f} x, {'holds' if ratio > 1 else 'does not hold'}"
            for (name, tokens), ratio in ahead.items()
        ],
        {1, 8} <= fitting[key],
        ahead[own_key],
        {1, 8} <= fitting[own_key],
    )
    wide = with_experts(model, 256)
    reports = {k: simulate(_packed(wide, real, "decode", _SEQUENCES, k)) for k in (1, 8)}
    crossing = {k: sum(report.sent_across_nodes_bytes) / report.tokens for k, report in reports.items()}
    yield Claim(
        "several experts per GPU: communication reduced by colocation",
        "reduced",
        crossing[8] / crossing[1] * 100,
        "% of the bytes a token sends between nodes, 8 experts per GPU against 1, of 256 experts",
        crossing[8] < crossing[1],
        [
            f"{real.name}, flat dispatch: {crossing[8] / 1e6:.1f} MB a token on 32 GPUs, {crossing[1] / 1e6:.1f} MB "
            "on 256; little is saved before an EP group is a few nodes"
        ],
        all(_fits(report, real) for report in reports.values()),
    )


def _throughput(model: ModelSpec, cluster: Cluster, phase: str, tokens: int) -> dict[int, StepReport]:
    """The step of each number of experts per GPU: 64 experts, the same batch on each GPU."""
    return {k: simulate(_packed(model, cluster, phase, tokens, k)) for k in _PER_GPU}


def _fits(report: StepReport, cluster: Cluster) -> bool:
    return max(report.peak_memory_bytes) <= cluster.gpu.memory_bytes


def _fitting(reports: dict[int, StepReport], ideal: Cluster, real: Cluster, name: str) -> set[int]:
    """The numbers of experts per GPU that memory holds."""
    cluster = ideal if name == ideal.name else real
    return {k for k, report in reports.items() if _fits(report, cluster)}


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
        options=Options(attention_ranks=min(ranks, ATTENTION_RANKS)),
    )


def _crossover(name: str, tokens: int, series: dict[int, float], fitting: set[int]) -> str:
    relative = {k: value / series[1] for k, value in series.items()}
    text = ", ".join(f"{k}{'' if k in fitting else '*'}: {value:.0%}" for k, value in relative.items())
    below = [k for k, value in relative.items() if value < 0.9]
    best = max(fitting or relative, key=lambda k: relative[k])
    verdict = f"below 90 % from {below[0]} experts per GPU" if below else "never below 90 %"
    return f"{name}, {_work_name(tokens)}: {text}; best at {best}, {verdict}" + (
        "" if fitting == set(series) else "; * does not fit"
    )


def _work_name(tokens: int) -> str:
    return "prefill of 4096 tokens per GPU" if tokens == 4096 else f"decode of {tokens} sequences per GPU"
