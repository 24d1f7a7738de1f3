"""When a deployment does not fit: single changes that make it fit, the cheapest first, each one predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from wingspan.deployment import Deployment
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
        cost: share of the throughput lost against the deployment that does not fit, were memory no limit;
            negative where the change makes it faster. A change of context or hardware has no such price.
        kind: `options` only changes how it runs, `precision` may change answers a little, `work` gives the user
            less than was asked for, `hardware` needs other GPUs.
    """

    text: str
    deployment: Deployment
    peak_bytes: float
    tokens_per_second_per_gpu: float
    cost: float
    kind: str


_KINDS = ("options", "precision", "work", "hardware")
"""From the cheapest to the dearest for the user; within a kind the smaller loss of throughput comes first."""


@dataclass(frozen=True)
class _Change:
    text: str
    kind: str
    deployment: Deployment


def ways_out(deployment: Deployment, most: int = 3) -> list[WayOut]:
    """The cheapest changes that make `deployment` fit; empty if it fits.

    Single changes come first; where fewer than `most` suffice alone, two at once are tried.
    """
    if memory_use(deployment).fits:
        return []
    wanted = simulate(deployment).tokens_per_second / deployment.ranks
    alone = [change for change in _changes(deployment) if memory_use(change.deployment).fits]
    found = _best_of_each(alone, wanted)
    if len(found) < most:
        pairs = [change for change in _pairs(deployment) if memory_use(change.deployment).fits]
        found += _best_of_each(pairs, wanted)[: most - len(found)]
    return found[:most]


def _best_of_each(changes: list[_Change], wanted: float) -> list[WayOut]:
    ways = []
    for change in changes:
        per_gpu = simulate(change.deployment).tokens_per_second / change.deployment.ranks
        peak = float(memory_use(change.deployment).total_R.max())
        ways.append(
            WayOut(change.text, change.deployment, peak, per_gpu, 1 - per_gpu / wanted, change.kind)
        )
    return sorted(ways, key=lambda way: (_KINDS.index(way.kind), way.cost))


def _changes(deployment: Deployment) -> Iterator[_Change]:
    yield from _attention(deployment)
    yield from _precisions(deployment)
    yield from _less_work(deployment)
    yield from _other_gpus(deployment)


def _pairs(deployment: Deployment) -> Iterator[_Change]:
    """Two changes at once: of unlike sort, the second tried on top of the first."""
    steps = (_attention, _precisions, _less_work)
    for first, second in combinations(steps, 2):
        for one in first(deployment, only_fitting=False):
            for two in second(one.deployment):
                kind = max(one.kind, two.kind, key=_KINDS.index)
                yield _Change(f"{one.text}, and {two.text}", kind, two.deployment)


def _attention(deployment: Deployment, *, only_fitting: bool = True) -> Iterator[_Change]:
    """Attention, dense layers, embedding and head cut over the ranks of a node: the smallest cut that fits."""
    asked = deployment.options.attention_ranks
    nodes = deployment.cluster.gpus_per_node
    candidates = [
        group
        for group in (2, 4, 8)
        if group > asked
        and nodes % group == 0
        and deployment.ranks % group == 0
        and deployment.model.attention.heads % group == 0
    ]
    changed = [(group, _with_options(deployment, attention_ranks=group)) for group in candidates]
    fitting = [(g, d) for g, d in changed if memory_use(d).fits]
    for group, new in fitting[:1] if only_fitting else changed:
        yield _Change(f"shard attention over {group} GPUs of a node", "options", new)


def _precisions(deployment: Deployment, *, only_fitting: bool = True) -> Iterator[_Change]:
    del only_fitting  # one step each: there is no smallest one
    workload = deployment.workload
    precisions = workload.precisions(deployment.model)
    if precisions.kv.bytes > 1:
        yield _Change("keep the KV cache in FP8", "precision", _with_workload(deployment, kv=Precision.FP8))
    if precisions.weights.bytes > 1 and Precision.FP8 in deployment.cluster.gpu.peak_flops:
        yield _Change("weights in FP8", "precision", _with_workload(deployment, weights=Precision.FP8))


def _less_work(deployment: Deployment, *, only_fitting: bool = True) -> Iterator[_Change]:
    del only_fitting  # the largest that fits
    workload = deployment.workload
    unit = "sequences" if workload.phase == "decode" else "tokens"
    batch = largest_batch(deployment)
    if 0 < batch < workload.tokens_per_gpu:
        yield _Change(
            f"{batch} {unit} per GPU instead of {workload.tokens_per_gpu}",
            "work",
            _with_workload(deployment, tokens_per_gpu=batch),
        )
    context = longest_context(deployment)
    if workload.phase == "decode" and 0 < context < workload.context.mean_tokens:
        shorter = workload.context.model_copy(update={"mean_tokens": context})
        yield _Change(
            f"context of {context} tokens instead of {workload.context.mean_tokens}",
            "work",
            _with_workload(deployment, context=shorter),
        )


def _other_gpus(deployment: Deployment) -> Iterator[_Change]:
    """As much memory as it takes, in steps of what GPUs are sold with."""
    needed = float(memory_use(deployment).total_R.max())
    gpu = deployment.cluster.gpu
    # Reserve is a share of the memory, so it grows with it.
    fixed = needed - deployment.options.reserve_share * gpu.memory_bytes
    capacity = fixed / (1 - deployment.options.reserve_share)
    for size in _SOLD_BYTES:
        if size >= capacity and size > gpu.memory_bytes:
            larger = gpu.model_copy(update={"memory_bytes": size})
            cluster = deployment.cluster.model_copy(update={"gpu": larger})
            new = deployment.model_copy(update={"cluster": cluster})
            yield _Change(f"GPUs with {size / 1e9:.0f} GB instead of {gpu.memory_bytes / 1e9:.0f} GB", "hardware", new)
            return


_SOLD_BYTES = (80e9, 96e9, 141e9, 180e9, 192e9, 288e9)
"""NVIDIA datasheets: H100 80, GH200 96, H200 141, B200 180, GB200 192 (186 usable), B300 288 GB."""


def _with_options(deployment: Deployment, **changes: Any) -> Deployment:
    return deployment.model_copy(update={"options": deployment.options.model_copy(update=changes)})


def _with_workload(deployment: Deployment, **changes: Any) -> Deployment:
    return deployment.model_copy(update={"workload": deployment.workload.model_copy(update=changes)})
