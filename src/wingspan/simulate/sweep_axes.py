"""The axes that a sweep can have, each a list of values that change a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from wingspan.errors import InputError
from wingspan.schedule.sweep_result import Value
from wingspan.simulate.sweep import Axis, AxisValue, Setting
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import parse_schedule, schedule_text
from wingspan.specs.reading import parse
from wingspan.specs.routing_text import fitted, read_routing
from wingspan.specs.workload import Routing, Workload


def all_axes(clusters: Sequence[Cluster], given: Mapping[str, Sequence[Any] | None]) -> list[Axis]:
    """Every axis that is given, outermost first: what a later one depends on comes before it.

    Args:
        clusters: of the first.
        given: the values of the others, by the axis's name as a `Description` has it; None leaves it out.
    """
    grouped = given.get("experts_per_rank") is not None
    makers: dict[str, Callable[[Sequence[Any]], Axis]] = {
        "schedule": schedule_axis,
        "routing": routing_axis,
        "bandwidth": bandwidth_axis,
        "context": context_axis,
        "tokens_per_gpu": batch_axis,
        "total_sequences": total_sequences_axis,
        "expert_tensor_parallel": expert_tp_axis,
        "experts_per_rank": experts_per_rank_axis,
        "ranks": partial(ranks_axis, grouped=grouped),
    }
    chosen = {name: values for name in makers if (values := given.get(name)) is not None}
    return [cluster_axis(clusters), *(makers[name](values) for name, values in chosen.items())]


def cluster_axis(clusters: Sequence[Cluster]) -> Axis:
    """Whole clusters, by their names."""
    choices = [AxisValue(cluster.name, partial(_with_cluster, cluster=cluster)) for cluster in clusters]
    return Axis("cluster", "cluster", choices)


def schedule_axis(names: Sequence[str]) -> Axis:
    """Schedules by name: see `with_schedule`."""
    return _axis("schedule", "schedule", names, with_schedule)


def routing_axis(texts: Sequence[str]) -> Axis:
    """How tokens choose, as `parse_routing` reads it."""
    return Axis("routing", "routing", [AxisValue(text, with_routing(text)) for text in texts])


def bandwidth_axis(gigabytes_per_second: Sequence[float]) -> Axis:
    """Vary the bandwidth of the network between scale-up domains, one direction, per GPU."""
    return _axis("bandwidth", "network bandwidth, GB/s per GPU", gigabytes_per_second, with_bandwidth)


def context_axis(tokens: Sequence[int]) -> Axis:
    """Mean context length of the sequences; in prefill, the prompt's."""
    return _axis("context", "context, tokens", tokens, with_context)


def batch_axis(tokens_per_gpu: Sequence[int]) -> Axis:
    """New tokens per GPU: in decode, sequences."""
    return _axis("tokens_per_gpu", "batch, tokens per GPU", tokens_per_gpu, with_batch)


def total_sequences_axis(counts: Sequence[int]) -> Axis:
    """Sequences over all GPUs: on more GPUs each has fewer, or none."""
    return _axis(
        "total_sequences", "sequences in all", counts, lambda s, n: replace(s, total_sequences=int(n))
    )


def experts_per_rank_axis(counts: Sequence[int]) -> Axis:
    """The baseline: see `Setting.experts_per_rank`."""
    return _axis(
        "experts_per_rank", "experts per GPU", counts, lambda s, n: replace(s, experts_per_rank=int(n))
    )


def expert_tp_axis(ranks: Sequence[int]) -> Axis:
    """Ranks over which every expert is cut."""
    return _axis("expert_tp", "GPUs that share each expert", ranks, with_expert_tp)


def ranks_axis(sizes: Sequence[int], *, grouped: bool = False) -> Axis:
    """EP sizes; if `grouped` by `experts_per_rank`, numbers of GPUs that form groups of a smaller EP size."""
    name, label = ("gpus", "GPUs") if grouped else ("ranks", "EP size")
    return _axis(name, label, sizes, lambda setting, size: replace(setting, gpus=int(size)))


def with_schedule(setting: Setting, name: Value) -> Setting:
    """A schedule's text, or `fastest`: whichever of sequential, two chunks and two batches is predicted to be.

    Raises:
        InputError: another name, or a number of chunks that is none.
    """
    if name == "fastest":
        return replace(setting, fastest_schedule=True)
    options = setting.options.model_copy(update={"schedule": schedule_text(*parse_schedule(str(name)))})
    return replace(setting, options=options, fastest_schedule=False)


def with_expert_tp(setting: Setting, ranks: Value) -> Setting:
    """Cut every expert over so many neighbouring ranks."""
    options = setting.options.model_copy(update={"expert_tensor_parallel": int(ranks)})
    return replace(setting, options=options)


def with_bandwidth(setting: Setting, gigabytes_per_second: Value) -> Setting:
    """Give the cluster another network; a card that several GPUs share carries as much for each of them.

    Raises:
        InputError: not above 0.
    """
    bandwidth = float(gigabytes_per_second) * 1e9
    if not bandwidth > 0:
        raise InputError(f"`bandwidth` {bandwidth / 1e9:g}: GB/s must be above 0")
    card = bandwidth * setting.cluster.gpus_per_network_card
    link = setting.cluster.scale_out.model_copy(update={"bandwidth_bytes_per_second": card})
    return replace(setting, cluster=setting.cluster.model_copy(update={"scale_out": link}))


def with_routing(text: str) -> Callable[[Setting], Setting]:
    """The change to another routing; its file is read once.

    Raises:
        InputError: as `read_routing`.
    """
    return partial(_with_routing, routing=read_routing(text))


def with_context(setting: Setting, tokens: Value) -> Setting:
    """Another mean context length, spread as before."""
    return _with_workload(setting, context=setting.workload.context.model_dump() | {"mean_tokens": tokens})


def with_batch(setting: Setting, tokens_per_gpu: Value) -> Setting:
    """Another batch."""
    return _with_workload(setting, tokens_per_gpu=tokens_per_gpu)


def _axis(
    name: str, label: str, values: Sequence[Value], change: Callable[[Setting, Value], Setting]
) -> Axis:
    return Axis(name, label, [AxisValue(value, partial(_changed, change, value)) for value in values])


def _changed(change: Callable[[Setting, Value], Setting], value: Value, setting: Setting) -> Setting:
    return change(setting, value)


def _with_cluster(setting: Setting, cluster: Cluster) -> Setting:
    return replace(setting, cluster=cluster)


def _with_routing(setting: Setting, routing: Routing) -> Setting:
    return _with_workload(setting, routing=fitted(routing, setting.model))


def _with_workload(setting: Setting, **changes: object) -> Setting:
    # Field by field, not dumped: a recorded routing keeps its tokens.
    changed = dict(setting.workload) | changes
    return replace(setting, workload=parse(Workload, changed, "workload"))
