"""The axes that a sweep can have, each a list of values that change a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from wingspan.deployment import Options
from wingspan.errors import InputError
from wingspan.schedule.sweep_result import Value
from wingspan.simulate.sweep import Axis, AxisValue, Setting
from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import ScheduleKind
from wingspan.specs.reading import parse
from wingspan.specs.workload import Workload


def cluster_axis(clusters: Sequence[Cluster]) -> Axis:
    """Whole clusters, by their names."""
    choices = [AxisValue(cluster.name, partial(_with_cluster, cluster=cluster)) for cluster in clusters]
    return Axis("cluster", "cluster", choices)


def schedule_axis(names: Sequence[str]) -> Axis:
    """Schedules by name: see `with_schedule`."""
    return _axis("schedule", "schedule", names, with_schedule)


def skew_axis(sigmas: Sequence[float]) -> Axis:
    """Log-normal: experts' shares are proportional to exp(sigma x standard normal); 0 is uniform."""
    return _axis("skew", "skew, sigma of the log-normal loads", sigmas, with_skew)


def bandwidth_axis(gigabytes_per_second: Sequence[float]) -> Axis:
    """Vary the bandwidth of the network between scale-up domains, one direction, per GPU."""
    return _axis("bandwidth", "network bandwidth, GB/s per GPU", gigabytes_per_second, with_bandwidth)


def context_axis(tokens: Sequence[int]) -> Axis:
    """Mean context length of the sequences; in prefill, the prompt's."""
    return _axis("context", "context, tokens", tokens, with_context)


def batch_axis(tokens_per_gpu: Sequence[int]) -> Axis:
    """New tokens per GPU: in decode, sequences."""
    return _axis("batch", "batch, tokens per GPU", tokens_per_gpu, with_batch)


def experts_per_gpu_axis(counts: Sequence[int]) -> Axis:
    """The baseline: see `Setting.experts_per_gpu`."""
    return _axis(
        "experts_per_gpu", "experts per GPU", counts, lambda s, n: replace(s, experts_per_gpu=int(n))
    )


def ep_axis(sizes: Sequence[int], *, grouped: bool = False) -> Axis:
    """EP sizes; if `grouped` by `experts_per_gpu`, numbers of GPUs that form groups of a smaller EP size."""
    return _axis(
        "ep", "GPUs" if grouped else "EP size", sizes, lambda setting, size: replace(setting, gpus=int(size))
    )


def with_schedule(setting: Setting, name: Value) -> Setting:
    """`sequential`, `chunks` or `chunks:N`, `two-batch`, or `fastest`: whichever of these is predicted to be.

    Raises:
        InputError: another name, or a number of chunks that is none.
    """
    if name == "fastest":
        return replace(setting, fastest_schedule=True)
    kind, _, count = str(name).partition(":")
    if kind not in [*ScheduleKind] or (count and (kind != ScheduleKind.CHUNKS or not count.isdigit())):
        raise InputError(f"schedule {name!r}; use sequential, chunks, chunks:N, two-batch or fastest")
    chunks = {"chunks": int(count)} if count else {}
    changed = setting.options.model_dump() | {"schedule": kind} | chunks
    return replace(setting, options=parse(Options, changed, "options"), fastest_schedule=False)


def with_bandwidth(setting: Setting, gigabytes_per_second: Value) -> Setting:
    """Give the cluster another network.

    Raises:
        InputError: not above 0.
    """
    bandwidth = float(gigabytes_per_second) * 1e9
    if not bandwidth > 0:
        raise InputError(f"bandwidth {gigabytes_per_second} GB/s must be above 0")
    link = setting.cluster.scale_out.model_copy(update={"bandwidth_bytes_per_second": bandwidth})
    return replace(setting, cluster=setting.cluster.model_copy(update={"scale_out": link}))


def with_skew(setting: Setting, sigma: Value) -> Setting:
    """Log-normal shares, or uniform ones at sigma 0."""
    routing = {"kind": "log_normal", "sigma": sigma} if float(sigma) else {"kind": "uniform"}
    return _with_workload(setting, routing=routing)


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


def _with_workload(setting: Setting, **changes: object) -> Setting:
    changed = setting.workload.model_dump() | changes
    return replace(setting, workload=parse(Workload, changed, "workload"))
