"""From a deployment to a group that serves: its step times on a grid of predictions, and its room for KV cache.

Shapes: N grid loads, C grid contexts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.schedule.result import Operation, StepReport
from wingspan.simulate.memory import memory_use
from wingspan.simulate.serving.engine import KVTransfer
from wingspan.simulate.serving.group import GroupSpec
from wingspan.simulate.serving.times import GridTimes, Surface
from wingspan.simulate.step import simulate
from wingspan.simulate.work import Work
from wingspan.specs.engines import profile_of
from wingspan.specs.memory import MemoryPart
from wingspan.specs.placement import Placement


@dataclass(frozen=True)
class Caps:
    """What a group is set to take.

    Args:
        sequences_per_gpu: most sequences at a time, per GPU.
        tokens_per_step: most tokens of a step, per GPU, prefill and decode together.
        longest_context: tokens of the longest request, prompt and output.
        mean_context: tokens of a request in the mean; KV cache is counted at this length.
    """

    sequences_per_gpu: int
    tokens_per_step: int
    longest_context: int
    mean_context: int


def group_of(deployment: Deployment, caps: Caps, *, name: str, decodes: bool, prefills: bool) -> GroupSpec:
    """A group that runs this deployment's steps; its workload gives routing and precisions, `caps` the sizes.

    A home is a rank, or a set of tensor-parallel ranks, with the room and the budget of all of them.

    Raises:
        InputError: no memory is left for KV cache, or the file says how unlike its ranks' tokens are.
    """
    if spread := deployment.workload.tokens_spread:
        raise InputError(
            f"workload.tokens_spread {spread:g}: ranks have as many tokens as the requests bring; set it to 0"
        )
    per_home = deployment.options.attention_ranks
    return GroupSpec(
        name=name,
        times=grid_times(deployment, caps),
        ranks=deployment.ranks,
        homes=deployment.ranks // per_home,
        kv_tokens_per_home=kv_tokens_per_home(deployment, caps, decodes=decodes, prefills=prefills),
        sequences_per_home=caps.sequences_per_gpu * per_home,
        tokens_per_step=caps.tokens_per_step * per_home,
    )


def grid_times(deployment: Deployment, caps: Caps) -> GridTimes:
    """Step times of decode and prefill, each from a few dozen predictions."""
    apart = profile_of(deployment.options.engine).prompts_apart
    return GridTimes(_decode_surface(deployment, caps), _prefill_surface(deployment, caps), apart)


def kv_tokens_per_home(
    deployment: Deployment,
    caps: Caps,
    *,
    decodes: bool,
    prefills: bool,
    placement: Placement | None = None,
) -> int:
    """Tokens whose KV cache fits beside weights, reserve, and the activations and buffers of the largest steps.

    `placement` is the deployment's, if it is at hand already.

    Raises:
        InputError: no room for even one token; says what fills the memory.
    """
    steps = [_decode(deployment, caps.sequences_per_gpu, caps.mean_context)] if decodes else []
    steps += [_prefill(deployment, caps.tokens_per_step, caps.mean_context)] if prefills else []
    placement = deployment.build_placement() if placement is None else placement
    parts = [memory_use(step, placement).parts for step in steps]
    held = {
        name: max(float(part[name].max()) for part in parts)
        for name in parts[0]
        if name is not MemoryPart.KV_CACHE
    }
    # Both kinds of kernels keep their buffers while the group serves.
    held[MemoryPart.BUFFERS] = sum(float(part[MemoryPart.BUFFERS].max()) for part in parts)
    capacity = deployment.cluster.gpu.memory_bytes
    room = capacity - sum(held.values())
    one = memory_use(_decode(deployment, 1, caps.mean_context), placement).parts[MemoryPart.KV_CACHE].max()
    tokens = int(room / (float(one) / _cached(deployment, caps)))
    if tokens < 1:
        largest = sorted(held, key=lambda part: -held[part])[:3]
        shown = ", ".join(f"{part} {held[part] / 1e9:.1f}" for part in largest)
        raise InputError(
            f"serving on {deployment.ranks} ranks: {sum(held.values()) / 1e9:.1f} GB of {capacity / 1e9:.1f} GB are "
            f"taken before any KV cache (GB: {shown}); share attention over more ranks, use more GPUs, or lower "
            "the sequences or tokens per step"
        )
    return tokens * deployment.options.attention_ranks


def kv_transfer(deployment: Deployment, caps: Caps) -> KVTransfer:
    """A prompt's KV cache over the network: every rank of a home sends its own part."""
    one = memory_use(_decode(deployment, 1, caps.mean_context)).parts[MemoryPart.KV_CACHE].max()
    return KVTransfer(
        # What a rank holds of one token of its home, of which there are `attention_ranks` times as many.
        bytes_per_token=float(one) / _cached(deployment, caps) / deployment.options.attention_ranks,
        bytes_per_second=deployment.cluster.network_share_bytes_per_second,
        latency_seconds=deployment.cluster.scale_out.latency_seconds,
    )


def _decode_surface(deployment: Deployment, caps: Caps) -> Surface:
    loads = _doubling(1, caps.sequences_per_gpu, 2)
    contexts = _doubling(max(1, caps.longest_context // 64), caps.longest_context, 4)
    reports = [[simulate(_decode(deployment, load, context)) for context in contexts] for load in loads]
    surface = _surface(deployment, loads, contexts, reports)
    # A step that gives several tokens a sequence stands for as many steps of one.
    gained = _decode(deployment, 1, 1).workload.gained_per_sequence
    return replace(
        surface,
        expert_seconds_NC=surface.expert_seconds_NC / gained,
        other_seconds_NC=surface.other_seconds_NC / gained,
    )


def _cached(deployment: Deployment, caps: Caps) -> int:
    """Tokens of a sequence of the mean length after a decode step."""
    return caps.mean_context + _decode(deployment, 1, 1).workload.tried_per_sequence


def _prefill_surface(deployment: Deployment, caps: Caps) -> Surface:
    """Tokens over attended context.

    A prediction cannot give a chunk an earlier context. So whole prompts are predicted, as long as a request is in
    the mean, and a chunk that attends to more than these do is charged the pairs beyond, at the rate of long prompts.
    """
    loads = _doubling(1, caps.tokens_per_step, 2)
    lengths = [min(load, caps.mean_context) for load in loads]
    reports = [
        simulate(_prefill(deployment, load, length)) for load, length in zip(loads, lengths, strict=True)
    ]
    per_pair = seconds_per_pair(deployment, caps)
    contexts_C = np.unique([length / 2 for length in [*lengths, 2 * caps.longest_context]])
    more_NC = np.maximum(0.0, contexts_C - np.array(lengths)[:, None] / 2)
    expert_N = np.array([_expert_seconds(report) for report in reports])
    other_N = np.array([report.step_seconds for report in reports]) - expert_N
    other_NC = np.maximum(0.0, other_N[:, None]) + per_pair * np.array(loads)[:, None] * more_NC
    expert_NC = np.broadcast_to(expert_N[:, None], other_NC.shape)
    return Surface(_per_home(deployment, loads), contexts_C, expert_NC, other_NC)


_LONG_PROMPT = 4096


def seconds_per_pair(deployment: Deployment, caps: Caps) -> float:
    """Attention's time for one more pair of tokens on a GPU, over all layers, where prompts are long."""
    tokens = max(_LONG_PROMPT, caps.longest_context)
    few, many = (_attention_seconds(_prefill(deployment, tokens, length)) for length in (tokens // 4, tokens))
    return max(0.0, many - few) / (tokens * (tokens - tokens // 4) / 2)


def _attention_seconds(step: Deployment) -> float:
    """All layers' attention, on the rank where it takes longest."""
    model, work = step.model, Work(step, step.used_cluster, 1)
    costs = [model.layers_of(n) * work.attention(kind).seconds for n, kind in enumerate(model.kinds)]
    return float(np.max(sum(costs, np.zeros(1))))


def _expert_seconds(report: StepReport) -> float:
    """Take the time of the rank that computes longest on its experts: the others wait for it."""
    return float(np.max(report.operation_seconds[Operation.EXPERT]))


def _surface(
    deployment: Deployment, loads: list[int], contexts: list[int], reports: list[list[StepReport]]
) -> Surface:
    expert = np.array([[_expert_seconds(report) for report in row] for row in reports])
    whole = np.array([[report.step_seconds for report in row] for row in reports])
    other = np.maximum(whole - expert, 0.0)
    return Surface(_per_home(deployment, loads), np.array(contexts, dtype=np.float64), whole - other, other)


def _per_home(deployment: Deployment, loads: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(loads, dtype=np.float64) * deployment.options.attention_ranks


def _decode(deployment: Deployment, sequences_per_gpu: int, context: int) -> Deployment:
    return _with(deployment, phase="decode", tokens_per_gpu=sequences_per_gpu, mean_tokens=context)


def _prefill(deployment: Deployment, tokens_per_gpu: int, prompt: int) -> Deployment:
    return _with(deployment, phase="prefill", tokens_per_gpu=tokens_per_gpu, mean_tokens=prompt)


def _with(deployment: Deployment, *, phase: str, tokens_per_gpu: int, mean_tokens: int) -> Deployment:
    context = deployment.workload.context.model_copy(update={"mean_tokens": max(1, mean_tokens)})
    workload = deployment.workload.model_copy(
        # Not drawn: a grid of single draws would not rise smoothly.
        update={
            "phase": phase,
            "tokens_per_gpu": tokens_per_gpu,
            "total_sequences": None,
            "context": context,
            "fluctuating": False,
        }
    )
    return deployment.model_copy(update={"workload": workload})


def _doubling(first: int, last: int, factor: int) -> list[int]:
    values = [first]
    while values[-1] * factor < last:
        values.append(values[-1] * factor)
    return values if values[-1] == last else [*values, last]
