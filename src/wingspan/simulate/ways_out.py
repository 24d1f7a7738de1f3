"""When a deployment does not fit: single changes that make it fit, the cheapest first, each one predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from wingspan.deployment import Deployment
from wingspan.simulate.layouts import attention_groups
from wingspan.simulate.memory import largest_batch, longest_context, memory_use
from wingspan.simulate.step import simulate
from wingspan.specs.precision import Precision


@dataclass(frozen=True)
class WayOut:
    """A change after which the deployment fits.

    Args:
        text: what to change, for a person.
        deployment: with the change made.
        peak_bytes: of the fullest rank.
        tokens_per_second_per_gpu: predicted.
        cost: share of the throughput per GPU lost against the deployment that does not fit, were memory no limit,
            or of the asked context, whichever is more; 0 where the change makes it faster.
        kind: `options` only changes how it runs, `precision` may change answers a little, `work` gives the user
            less than was asked for, `hardware` needs other GPUs.
    """

    text: str
    deployment: Deployment
    peak_bytes: float
    tokens_per_second_per_gpu: float
    cost: float
    kind: str

    @property
    def changes(self) -> str:
        """What another than was asked for, in words."""
        return _CHANGES[self.kind]


_CHANGES = {
    "options": "how it runs",
    "precision": "precision",
    "work": "less work",
    "hardware": "hardware",
}
_KINDS = tuple(_CHANGES)
"""From the cheapest to the dearest for the user; within a kind the smaller loss of throughput comes first."""


@dataclass(frozen=True)
class _Change:
    text: str
    kind: str
    deployment: Deployment
    lost: float = 0.0
    """Share of what was asked for that no throughput shows: context."""


def ways_out(deployment: Deployment, most: int = 3) -> list[WayOut]:
    """The cheapest changes that make `deployment` fit; empty if it fits.

    Where fewer than `most` changes suffice alone, two at once are tried too. The cheapest of each kind goes before
    a second one of the same kind, so that there is something to choose from.
    """
    if memory_use(deployment).fits:
        return []
    wanted = simulate(deployment).tokens_per_second / deployment.ranks
    found = _cheapest_first([_priced(c, wanted) for sort in _SORTS for c in _fitting(sort(deployment))])
    if len(found) < most:
        found = _cheapest_first(found + _pairs(deployment, wanted))
    best = {way.kind: way for way in reversed(found)}
    return _cheapest_first([*best.values(), *(w for w in found if w is not best[w.kind])][:most])


def _fitting(changes: Iterator[_Change]) -> list[_Change]:
    """The first change of a sort that suffices: a sort begins with its smallest."""
    return [change for change in changes if memory_use(change.deployment).fits][:1]


def _priced(change: _Change, wanted: float) -> WayOut:
    per_gpu = simulate(change.deployment).tokens_per_second / change.deployment.ranks
    peak = float(memory_use(change.deployment).total_R.max())
    cost = max(1 - per_gpu / wanted, change.lost, 0.0)
    return WayOut(change.text, change.deployment, peak, per_gpu, cost, change.kind)


def _cheapest_first(ways: list[WayOut]) -> list[WayOut]:
    return sorted(ways, key=lambda way: (_KINDS.index(way.kind), way.cost))


def _pairs(deployment: Deployment, wanted: float) -> list[WayOut]:
    """Changes of two sorts at once, the second on top of the first: the cheapest of each pair of sorts."""
    ways = []
    for first, second in combinations(_SORTS, 2):
        both = [
            _Change(
                f"{one.text}, and {two.text}",
                max(one.kind, two.kind, key=_KINDS.index),
                two.deployment,
                max(one.lost, two.lost),
            )
            for one in first(deployment)
            if not memory_use(one.deployment).fits
            for two in _fitting(second(one.deployment))
        ]
        ways += _cheapest_first([_priced(change, wanted) for change in both])[:1]
    return ways


def _attention(deployment: Deployment) -> Iterator[_Change]:
    """Attention, dense layers, embedding and head cut over the ranks of a node, ever finer."""
    options, heads = deployment.options, deployment.model.heads
    for group in attention_groups(
        deployment.ranks, deployment.cluster, heads, options.expert_tensor_parallel
    ):
        if group > options.attention_ranks:
            new = _with_options(deployment, attention_ranks=group)
            yield _Change(f"shard attention over {group} GPUs of a node", "options", new)


def _cache(deployment: Deployment) -> Iterator[_Change]:
    if deployment.precisions.kv.bytes > 1:
        yield _Change("keep the KV cache in FP8", "precision", _in_precision(deployment, kv=Precision.FP8))


def _weights(deployment: Deployment) -> Iterator[_Change]:
    wide = any(part.weights.bytes > 1 for part in deployment.precisions.parts.values())
    if wide and Precision.FP8 in deployment.cluster.gpu.peak_flops:
        in_fp8 = {
            name: Precision.FP8
            for name, part in deployment.precisions.parts.items()
            if part.weights.bytes > 1
        }
        yield _Change("weights in FP8", "precision", _in_precision(deployment, **in_fp8))


def _batch(deployment: Deployment) -> Iterator[_Change]:
    asked, batch = deployment.workload.tokens_per_gpu, largest_batch(deployment)
    unit = "sequences" if deployment.workload.phase == "decode" else "tokens"
    if 0 < batch < asked:
        new = _with_workload(deployment, tokens_per_gpu=batch, total_sequences=None)
        yield _Change(f"{batch} {unit} per GPU instead of {asked}", "work", new)


def _context(deployment: Deployment) -> Iterator[_Change]:
    if deployment.workload.phase == "prefill":
        return
    asked, context = deployment.workload.context, longest_context(deployment)
    if 0 < context < asked.mean_tokens:
        shorter = asked.model_copy(update={"mean_tokens": context})
        text = f"context of {context} tokens instead of {asked.mean_tokens}"
        yield _Change(
            text, "work", _with_workload(deployment, context=shorter), 1 - context / asked.mean_tokens
        )


def _larger_gpus(deployment: Deployment) -> Iterator[_Change]:
    """Take GPUs with as much memory as it needs, in steps of what GPUs are sold with."""
    gpu = deployment.cluster.gpu
    for size in _SOLD_BYTES:
        if size > gpu.memory_bytes:
            larger = gpu.model_copy(update={"memory_bytes": size})
            cluster = deployment.cluster.model_copy(update={"gpu": larger})
            text = f"GPUs with {size / 1e9:.0f} GB instead of {gpu.memory_bytes / 1e9:.0f} GB"
            yield _Change(text, "hardware", deployment.model_copy(update={"cluster": cluster}))


def _more_ranks(deployment: Deployment) -> Iterator[_Change]:
    """Fewer experts on each GPU: the EP size doubled, in whole nodes, until one is left."""
    placement, experts = deployment.placement, deployment.model.experts.count
    ranks, cluster, node = deployment.ranks, deployment.cluster, deployment.cluster.gpus_per_node
    cut = deployment.options.expert_tensor_parallel
    while placement.slots is None and ranks // cut < experts:
        ranks = 2 * ranks if 2 * ranks <= node else -(-2 * ranks // node) * node
        groups = ranks // cut
        spread = placement.model_copy(update={"ranks": groups, "experts_per_rank": -(-experts // groups)})
        gpus = max(ranks, cluster.gpus)
        new = deployment.model_copy(update={"placement": spread, "cluster": cluster.with_gpus(gpus)})
        yield _Change(f"{ranks} GPUs instead of {deployment.ranks}", "hardware", new)


_SORTS = (_attention, _cache, _weights, _batch, _context, _more_ranks, _larger_gpus)

_SOLD_BYTES = (80e9, 96e9, 141e9, 180e9, 192e9, 288e9)
"""NVIDIA datasheets: H100 80, GH200 96, H200 141, B200 180, GB200 192 (186 usable), B300 288 GB."""


def _with_options(deployment: Deployment, **changes: Any) -> Deployment:
    return deployment.model_copy(update={"options": deployment.options.model_copy(update=changes)})


def _in_precision(deployment: Deployment, **formats: Precision) -> Deployment:
    return deployment.model_copy(update={"workload": deployment.workload.with_precision(**formats)})


def _with_workload(deployment: Deployment, **changes: Any) -> Deployment:
    return deployment.model_copy(update={"workload": deployment.workload.model_copy(update=changes)})
