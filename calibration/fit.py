"""Fit the constants of `presets/kernels/h100.yaml` from a folder of published measurements, or those of `b200.yaml`.

    python calibration/fit.py FOLDER [--stage NAME]
    python calibration/fit.py --package [--stage NAME]

Each stage varies a few constants and minimises the mean |log(predicted / measured)| over the fitting rows of its
groups, every group with equal weight. The rows that judge (`wingspan validate`) are never looked at. The result is
printed as `path = value`; the presets hold it rounded to two or three digits. FOLDER holds the tables of both projects
that `interop/silicon/sources.py` names; `--package` takes B200's tables of the installed aiconfigurator-core.

Arithmetic shares of B200's products and experts were fitted one precision at a time, its attention core on the
package's `generation_mla` table, which is of the core alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.optimize import differential_evolution

from wingspan.interop.silicon.groups import MeasurementGroup
from wingspan.interop.silicon.sources import read_folder, read_newer
from wingspan.specs.cluster import Cluster, load_cluster


@dataclass(frozen=True)
class Stage:
    """Constants that are fitted together: `path: (low, high)`, and the groups that show them."""

    bounds: dict[str, tuple[float, float]]
    groups: tuple[str, ...]


def _phase(method: str, phase: str) -> dict[str, tuple[float, float]]:
    at = f"kernels.{method}.{phase}."
    bounds = {
        at + "launch_seconds": (5e-6, 80e-6),
        at + "across_seconds": (0.0, 60e-6),
        at + "doubling_seconds": (0.0, 60e-6),
        at + "scale_up_share": (0.4, 1.0),
        at + "scale_out_share": (0.7, 1.0),
    }
    if method == "normal":
        bounds[at + "forward_bytes_per_second_per_processor"] = (4e9, 16e9)
    return bounds


STAGES = {
    "products": Stage(
        {
            "gpu.mfu": (0.6, 0.95),
            "gpu.memory_bandwidth_utilisation": (0.7, 1.0),
            "kernels.matmul.launch_seconds": (1e-6, 8e-6),
            "kernels.matmul.inner_step_seconds": (0.3e-9, 1.5e-9),
            "kernels.matmul.unhidden_share": (0.0, 1.0),
            "kernels.experts.recorded_launch_seconds": (5e-6, 40e-6),
            "kernels.experts.launch_seconds": (0.0, 300e-6),
            "kernels.experts.host_seconds": (300e-6, 450e-6),
            "kernels.experts.copy_passes": (0.0, 3.0),
        },
        ("matrix product", "experts: decode", "experts: prefill"),
    ),
    "attention-decode": Stage(
        {
            "kernels.matmul.recorded_launch_seconds": (0.0, 5e-6),
            "kernels.attention.decode_launch_seconds": (0.0, 40e-6),
            "kernels.attention.decode_share": (0.4, 1.0),
            "kernels.attention.decode_unhidden_share": (0.0, 1.0),
        },
        ("attention: MLA decode",),
    ),
    "attention-prefill": Stage(
        {
            "kernels.attention.prefill_launch_seconds": (0.0, 100e-6),
            "kernels.attention.prefill_share": (0.5, 1.0),
            "kernels.attention.sequence_seconds": (0.0, 6e-6),
            "kernels.attention.layer_seconds": (0.0, 600e-6),
            "kernels.attention.host_seconds": (500e-6, 700e-6),
        },
        ("attention: MLA prefill",),
    ),
    "normal-dispatch": Stage(_phase("normal", "dispatch"), ("dispatch: normal, 1-4 nodes",)),
    "normal-combine": Stage(_phase("normal", "combine"), ("combine: normal, 1-4 nodes",)),
    "low-latency-dispatch": Stage(_phase("low_latency", "dispatch"), ("dispatch: low-latency",)),
    "low-latency-combine": Stage(_phase("low_latency", "combine"), ("combine: low-latency",)),
    "collective": Stage(
        {
            "kernels.collective.launch_seconds": (0.0, 10e-6),
            "kernels.collective.doubling_seconds": (0.0, 8e-6),
            "kernels.collective.all_reduce_doubling": (1.0, 3.0),
            "kernels.collective.scale_up_share": (0.1, 1.0),
            "kernels.collective.bulk.launch_seconds": (0.0, 60e-6),
            "kernels.collective.bulk.scale_up_share": (0.5, 1.0),
        },
        ("collective",),
    ),
    "one-shot": Stage(
        {
            "kernels.collective.one_shot.launch_seconds": (0.0, 10e-6),
            "kernels.collective.one_shot.doubling_seconds": (0.0, 2e-6),
            "kernels.collective.one_shot.scale_up_share": (0.3, 1.0),
        },
        ("all-reduce",),
    ),
}


def _inside(method: str, phase: str) -> Stage:
    """What a table of one node shows of an exchange."""
    at = f"kernels.{method}.{phase}."
    bounds = {at + "launch_seconds": (2e-6, 80e-6), at + "scale_up_share": (0.1, 1.0)}
    if method == "normal":
        bounds[at + "copy_bytes_per_second_per_processor"] = (5e9, 40e9)
    return Stage(bounds, (f"{phase}: {'normal' if method == 'normal' else 'low-latency'}",))


PACKAGE_STAGES = {
    "products": Stage({"kernels.matmul.launch_seconds": (1e-6, 20e-6)}, ("matrix product",)),
    "experts-prefill": Stage(
        {
            "kernels.experts.launch_seconds": (0.0, 400e-6),
            "kernels.experts.host_seconds": (100e-6, 700e-6),
            "kernels.experts.copy_passes": (0.0, 6.0),
        },
        ("experts: prefill",),
    ),
    "attention-decode": Stage(
        {"kernels.matmul.recorded_launch_seconds": (0.0, 10e-6)}, ("attention: MLA decode",)
    ),
    "attention-prefill": STAGES["attention-prefill"],
    "normal-dispatch": _inside("normal", "dispatch"),
    "normal-combine": _inside("normal", "combine"),
    "low-latency-dispatch": _inside("low_latency", "dispatch"),
    "low-latency-combine": _inside("low_latency", "combine"),
    "collective": STAGES["collective"],
    "one-shot": STAGES["one-shot"],
}
"""Of B200: all of one node."""


def with_value(model: BaseModel, path: str, value: float) -> BaseModel:
    """A copy in which the field at the dotted `path` has another value."""
    head, _, rest = path.partition(".")
    changed = with_value(getattr(model, head), rest, value) if rest else value
    return model.model_copy(update={head: changed})


def with_values(cluster: Cluster, values: dict[str, float]) -> Cluster:
    """A copy in which all of these have other values."""
    changed: BaseModel = cluster
    for path, value in values.items():
        changed = with_value(changed, path, value)
    if not isinstance(changed, Cluster):
        raise TypeError("a copy of a cluster is a cluster")
    return changed


def fit(stage: Stage, groups: list[MeasurementGroup], clusters: dict[str, Cluster]) -> dict[str, float]:
    """The constants of a stage that suit its groups' fitting rows best."""
    chosen = [group for group in groups if group.name.startswith(stage.groups) and group.for_fitting.any()]
    if not chosen:
        return {}
    paths = list(stage.bounds)

    def loss(point: NDArray[np.float64]) -> float:
        values = dict(zip(paths, point, strict=True))
        total = 0.0
        for group in chosen:
            predicted = group.predict(with_values(clusters[group.cluster], values))
            ratio = predicted[group.for_fitting] / group.measured[group.for_fitting]
            total += float(np.mean(np.abs(np.log(ratio))))
        return total / len(chosen)

    found = differential_evolution(
        loss, list(stage.bounds.values()), seed=0, popsize=8, maxiter=60, tol=1e-6, polish=False
    )
    return dict(zip(paths, (float(x) for x in found.x), strict=True))


def main(arguments: list[str]) -> None:
    package = arguments[0] == "--package"
    stages = PACKAGE_STAGES if package else STAGES
    wanted = arguments[arguments.index("--stage") + 1 :] if "--stage" in arguments else list(stages)
    groups = _of_b200() if package else read_folder(Path(arguments[0]))
    clusters = {name: load_cluster(name) for name in (("b200",) if package else ("h100-sxm", "h800"))}
    for name in wanted:
        values = fit(stages[name], groups, clusters)
        for path, value in values.items():
            print(f"{path} = {value:.4g}", flush=True)
        clusters = {key: with_values(cluster, values) for key, cluster in clusters.items()}


def _of_b200() -> list[MeasurementGroup]:
    return [
        replace(group, name=group.name.removeprefix("b200: "))
        for group in read_newer()
        if group.cluster == "b200"
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
