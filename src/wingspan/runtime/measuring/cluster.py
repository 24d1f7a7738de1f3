"""From measurements to a cluster file: straight lines through the samples, one per resource."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wingspan.runtime.measuring.calibrate import Links, Measurements, Overheads, Sample
from wingspan.specs.cluster import Cluster, Gpu, Link
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.kernels import (
    AttentionKernel,
    CollectiveKernel,
    ContentionKernel,
    ExchangeKernel,
    ExchangePhase,
    ExpertsKernel,
    Kernels,
    MatmulKernel,
)
from wingspan.specs.precision import Precision

_SOURCE = "wingspan calibrate"
_NOT_MEASURED = "not measured; no loss assumed"


def measured_cluster(
    found: Measurements, name: str, device_name: str, memory_bytes_per_rank: float
) -> Cluster:
    """The cluster whose costs are the measured ones: what was measured is *sustained*, so all shares are 1.

    A level without ranks on it (one rank per node, or one node) gets the other level's link; a single rank, which
    has none, gets its memory's rate.
    """
    lines = {kind: line(samples) for kind, samples in found.products.items()}
    read_bytes, read_seconds = found.read
    memory = read_bytes / read_seconds
    within, across = _levels(found.links, memory)
    measured = {"measured": f"{_SOURCE}: {found.ranks} ranks, {found.ranks_per_node} per node, all at once"}
    if not found.links.within:
        measured["scale_up"] = "not measured (one rank per node): as scale_out, or memory for a single rank"
    if not found.links.across:
        measured["scale_out"] = "not measured (one node): as scale_up, or memory for a single rank"
    kernels = _kernels(min(intercept for intercept, _ in lines.values()))
    if found.overheads is not None:
        latency = (across if found.ranks > found.ranks_per_node else within).latency_seconds
        flops = 1 / lines[Precision.BF16][1]
        kernels = _with_overheads(kernels, found.overheads, latency, flops)
    return Cluster(
        name=name,
        sources=measured,
        nodes=found.ranks // found.ranks_per_node,
        gpus_per_node=found.ranks_per_node,
        gpu=Gpu(
            name=device_name,
            peak_flops={kind: float(f"{1 / slope:.4g}") for kind, (_, slope) in lines.items()},
            mfu=1.0,
            memory_bytes=memory_bytes_per_rank,
            memory_bandwidth_bytes_per_second=float(f"{memory:.4g}"),
            memory_bandwidth_utilisation=1.0,
        ),
        scale_up=within,
        scale_up_domain_gpus=found.ranks_per_node,
        scale_out=across,
        kernels=kernels,
        process_bytes=None if found.overheads is None else float(f"{found.overheads.process_bytes:.4g}"),
    )


def _with_overheads(kernels: Kernels, found: Overheads, latency_seconds: float, flops: float) -> Kernels:
    """Launches as a whole layer shows them: a product's from the router (a norm and a product), the rest beyond these.

    Args:
        kernels: whose products are priced by their size.
        found: what the parts of a layer take.
        latency_seconds: of an empty message, which an exchange has besides.
        flops: per second, of a large product in BF16.
    """
    launch = _rounded(found.gate_seconds / 2)
    # A norm and four projections have launches of their own.
    attention = _rounded(max(0.0, found.attention_seconds - 5 * launch))
    experts = _rounded(found.experts_seconds)
    computed, seconds = found.cache
    share = _rounded(computed / (seconds * flops)) if seconds else 1.0

    def exchange(kind: DispatcherKind) -> ExchangeKernel:
        phases = [
            kernels.normal.dispatch.model_copy(
                update={"launch_seconds": _rounded(max(0.0, seconds.get(kind, slowest) - latency_seconds))}
            )
            for seconds in (found.dispatch_seconds, found.combine_seconds)
            for slowest in (max(seconds.values()),)
        ]
        return ExchangeKernel(
            source=f"{_SOURCE}: a small layer's", processors=0, dispatch=phases[0], combine=phases[1]
        )

    return kernels.model_copy(
        update={
            "matmul": kernels.matmul.model_copy(
                update={"launch_seconds": launch, "recorded_launch_seconds": launch}
            ),
            "experts": kernels.experts.model_copy(
                update={
                    "source": f"{_SOURCE}: a small layer's",
                    "launch_seconds": experts,
                    "recorded_launch_seconds": experts,
                }
            ),
            "attention": kernels.attention.model_copy(
                update={
                    "source": f"{_SOURCE}: a small layer's; beyond it no loss assumed",
                    "decode_launch_seconds": attention,
                    "decode_share": min(1.0, share),
                    "prefill_launch_seconds": attention,
                }
            ),
            "low_latency": exchange(DispatcherKind.FLAT),
            "normal": exchange(DispatcherKind.HIERARCHICAL),
        }
    )


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def with_links(cluster: Cluster, links: Links) -> Cluster:
    """`cluster` with the measured links in place of its own, and transfers that cost nothing beyond them."""
    within, across = _levels(links, cluster.gpu.sustained_memory_bytes_per_second)
    plain = _kernels(0.0)
    kernels = cluster.kernels.model_copy(
        update={name: getattr(plain, name) for name in ("normal", "low_latency", "collective", "contention")}
    )
    return cluster.model_copy(
        update={
            "name": "the measured",
            "scale_up": within,
            "scale_out": across,
            "racks": None,
            "kernels": kernels,
        }
    )


def _levels(links: Links, fallback_bytes_per_second: float) -> tuple[Link, Link]:
    """The links within and across nodes; a level without ranks on it gets the other's."""
    within, across = links.within or links.across, links.across or links.within
    return _link(within, fallback_bytes_per_second), _link(across, fallback_bytes_per_second)


def line(samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds = intercept + slope x amount, fitted to relative errors, neither below zero.

    Example: `[(0, 1), (10, 2)]` gives (1.0, 0.1).
    """
    amount, seconds = (np.array(column, dtype=np.float64) for column in zip(*samples, strict=True))
    weights = 1 / seconds
    columns = np.stack([weights, amount * weights], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(columns, np.ones(len(samples)), rcond=None)
    if intercept < 0:
        intercept, slope = 0.0, float(np.median(seconds / np.maximum(amount, 1e-30)))
    if slope <= 0:
        # Noise hid the growth: the largest sample alone tells the rate.
        intercept, slope = 0.0, float(seconds[-1] / amount[-1])
    return float(intercept), float(slope)


def _link(samples: Sequence[Sample], fallback_bytes_per_second: float) -> Link:
    if not samples:
        return Link(
            bandwidth_bytes_per_second=fallback_bytes_per_second, utilisation=1.0, latency_seconds=0.0
        )
    intercept, slope = line(samples)
    return Link(
        bandwidth_bytes_per_second=float(f"{1 / slope:.4g}"),
        utilisation=1.0,
        latency_seconds=float(f"{intercept:.4g}"),
    )


def _kernels(launch_seconds: float) -> Kernels:
    """Plain kernels: a launch per product, work that divides without remainder, links without further losses."""
    launch = float(f"{launch_seconds:.4g}")
    phase = ExchangePhase(
        launch_seconds=0,
        across_seconds=0,
        doubling_seconds=0,
        scale_up_share=1,
        scale_out_share=1,
        forward_bytes_per_second_per_processor=0,
    )
    exchange = ExchangeKernel(source="contained in the links", processors=0, dispatch=phase, combine=phase)
    return Kernels(
        name="measured",
        matmul=MatmulKernel(
            source=_SOURCE,
            launch_seconds=launch,
            recorded_launch_seconds=launch,
            row_tiles=(1,),
            column_tiles=(1,),
            processors=0,
            inner_step_seconds=0,
            unhidden_share=0,
        ),
        experts=ExpertsKernel(
            source=f"{_SOURCE}: two products",
            recorded_launch_seconds=2 * launch,
            launch_seconds=2 * launch,
            host_seconds=0,
            row_alignment=1,
            copy_passes=0,
        ),
        attention=AttentionKernel(
            source=_NOT_MEASURED,
            decode_launch_seconds=launch,
            decode_share=1,
            decode_unhidden_share=0,
            prefill_launch_seconds=launch,
            prefill_share=1,
            query_tile=1,
            sequence_seconds=0,
            layer_seconds=0,
            host_seconds=0,
        ),
        normal=exchange,
        low_latency=exchange,
        collective=CollectiveKernel(
            source="contained in the links", launch_seconds=0, doubling_seconds=0, scale_up_share=1
        ),
        contention=ContentionKernel(source=_NOT_MEASURED, compute_slowdown=1, communication_slowdown=1),
    )
