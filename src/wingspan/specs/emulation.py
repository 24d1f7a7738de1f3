"""A cluster's GPUs on another cluster's links, slowed down together: what a paced run on a testbed emulates."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.specs.cluster import Cluster
from wingspan.specs.kernels import Kernels, longer


def on_links(cluster: Cluster, links: Cluster, time_scale: float) -> Cluster:
    """`cluster`'s GPUs computing `time_scale` times slower, joined by `links`' links as they are.

    Compute and memory rates fall, launches take longer; transfers cost what `links` says. Nothing contends: a rank
    that sleeps for its compute disturbs no transfer.

    Raises:
        InputError: a scale that is not positive.
    """
    if time_scale <= 0:
        raise InputError(f"time scale {time_scale:g} must be above 0; 1 = as fast as the described GPU")
    gpu = cluster.gpu
    slower = gpu.model_copy(
        update={
            "peak_flops": {kind: flops / time_scale for kind, flops in gpu.peak_flops.items()},
            "memory_bandwidth_bytes_per_second": gpu.memory_bandwidth_bytes_per_second / time_scale,
        }
    )
    return links.model_copy(
        update={
            "name": f"{cluster.name}'s GPUs {time_scale:g} x slower on {links.name}'s links",
            "gpu": slower,
            "kernels": _kernels(cluster.kernels, links.kernels, time_scale),
        }
    )


def _kernels(compute: Kernels, transfers: Kernels, time_scale: float) -> Kernels:
    return compute.model_copy(
        update={
            "matmul": longer(compute.matmul, time_scale),
            "experts": longer(compute.experts, time_scale),
            "attention": longer(compute.attention, time_scale),
            "small": longer(compute.small, time_scale),
            "engine": longer(compute.engine, time_scale),
            "normal": transfers.normal,
            "low_latency": transfers.low_latency,
            "collective": transfers.collective,
            "contention": transfers.contention,
            "accuracy": {},
        }
    )
