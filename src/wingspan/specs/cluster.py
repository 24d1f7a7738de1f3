"""The cluster: its GPUs, its links at each level, and how they lie in nodes and racks.

All bandwidths are of one direction and per GPU; a figure that a vendor prints for both directions is halved.
"""

from __future__ import annotations

from importlib import resources
from math import gcd
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from wingspan.errors import InputError
from wingspan.specs.kernels import Kernels, kernels_named
from wingspan.specs.precision import Precision
from wingspan.specs.reading import Spec, parse, read_yaml
from wingspan.writing import write_text

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Gpu(Spec):
    """One device."""

    name: str
    peak_flops: dict[Precision, Positive] = Field(min_length=1, description="dense, without sparsity")
    mfu: Share = Field(description="share of the peak that a large matrix product reaches")
    memory_bytes: Positive
    memory_bandwidth_bytes_per_second: Positive
    memory_bandwidth_utilisation: Share = Field(description="share of it that a large read reaches")

    def sustained_flops(self, precision: Precision) -> float:
        """FLOP per second of a large matrix product.

        Raises:
            InputError: the device does not compute in `precision`.
        """
        if precision not in self.peak_flops:
            raise InputError(
                f"{self.name} has no peak_flops for {precision}; "
                f"use one of {', '.join(self.peak_flops)}, or add it to the cluster file"
            )
        return self.peak_flops[precision] * self.mfu

    @property
    def sustained_memory_bytes_per_second(self) -> float:
        """Bytes per second of a large read."""
        return self.memory_bandwidth_bytes_per_second * self.memory_bandwidth_utilisation


class Link(Spec):
    """One level of the network, as one GPU sees it."""

    bandwidth_bytes_per_second: Positive = Field(description="one direction, per GPU")
    utilisation: Share = Field(description="share of it that a large transfer reaches")
    latency_seconds: Annotated[float, Field(ge=0)] = Field(description="of an empty message")

    @property
    def sustained_bytes_per_second(self) -> float:
        """Bytes per second of a large transfer."""
        return self.bandwidth_bytes_per_second * self.utilisation


class Racks(Spec):
    """Nodes under one leaf switch, and how much narrower the way up from it is."""

    nodes_per_rack: int = Field(ge=1)
    oversubscription: float = Field(ge=1, description="bandwidth down / bandwidth up; 1 = full bisection")


class Cluster(Spec):
    """Where a model is to run.

    Raises (through `parse`):
        InputError: the scale-up domain does not consist of whole nodes, or nodes not of whole domains. A single node
            may end with a narrower domain: three GPUs of a node of pairs are a pair and one.
    """

    name: str
    sources: dict[str, str] = Field(default_factory=dict, description="where each figure was found")
    nodes: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    gpu: Gpu
    scale_up: Link = Field(description="within a scale-up domain: NVLink")
    scale_up_domain_gpus: int = Field(ge=1, description="GPUs that reach each other by scale_up")
    scale_out: Link = Field(description="between domains: each GPU's network card")
    racks: Racks | None = None
    kernels: Kernels

    @model_validator(mode="before")
    @classmethod
    def _kernels_by_name(cls, data: Any) -> Any:
        """`kernels: h100` stands for the preset of that name."""
        if isinstance(data, dict) and isinstance(data.get("kernels"), str):
            return {**data, "kernels": kernels_named(data["kernels"])}
        return data

    @model_validator(mode="after")
    def _whole_domains(self) -> Self:
        domain, node = self.scale_up_domain_gpus, self.gpus_per_node
        if domain % node and (node % domain if self.nodes > 1 else domain > node):
            raise ValueError(
                f"scale_up_domain_gpus {domain} and gpus_per_node {node} do not divide each other; "
                f"use {node} or a multiple of it"
            )
        return self

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node

    def with_gpus(self, gpus: int) -> Cluster:
        """Take as many nodes of this hardware as `gpus` need; nodes stay whole, also where one is not filled.

        Raises:
            InputError: `gpus` is neither below one node nor a number of whole nodes.
        """
        if gpus < 1:
            raise InputError(f"{gpus} GPUs: use 1 or more")
        per_node = self.gpus_per_node
        if gpus > per_node and gpus % per_node:
            fewer = gpus // per_node * per_node
            raise InputError(
                f"{gpus} GPUs do not fill whole nodes of {per_node}; use {fewer} or {fewer + per_node}"
            )
        return self.with_nodes(-(-gpus // per_node), per_node)

    def part(self, gpus: int) -> Cluster:
        """So many of its GPUs, with the links that lie between them: whole nodes, or some GPUs of one.

        Raises:
            InputError: as `with_gpus`.
        """
        whole = self.with_gpus(gpus)
        return whole if gpus >= self.gpus_per_node else self.with_nodes(1, gpus)

    def with_nodes(self, nodes: int, gpus_per_node: int) -> Cluster:
        """Put the same GPUs and links into nodes of another number or size, which keep their scale-up domains.

        A domain of whole nodes stays of as many nodes. One that is part of a node stays as wide, as far as nodes of
        the new size consist of such domains: several nodes of three GPUs, cut from pairs, hold no whole number.
        """
        domain = self.scale_up_domain_gpus
        if domain >= self.gpus_per_node:
            domain = domain // self.gpus_per_node * gpus_per_node
        elif nodes > 1:
            domain = gcd(domain, gpus_per_node)
        else:
            domain = min(domain, gpus_per_node)
        return self.model_copy(
            update={"nodes": nodes, "gpus_per_node": gpus_per_node, "scale_up_domain_gpus": domain}
        )


def load_cluster(name_or_path: str) -> Cluster:
    """A preset by its name, or a cluster from a YAML file.

    Raises:
        InputError: neither a preset nor a readable, valid file; the line names the presets.
    """
    if name_or_path in cluster_presets():
        folder = resources.files("wingspan.specs") / "presets" / "clusters"
        with resources.as_file(folder / f"{name_or_path}.yaml") as path:
            return parse(Cluster, read_yaml(path), f"preset {name_or_path}")
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"{name_or_path}: neither a cluster file nor a preset; presets: {', '.join(cluster_presets())}"
        )
    return parse(Cluster, read_yaml(path), str(path))


def cluster_yaml(cluster: Cluster) -> str:
    """A cluster as the YAML text that `load_cluster` reads."""
    data = cluster.model_dump(mode="json", exclude_none=True)
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110)
    return text


def save_cluster(cluster: Cluster, path: Path) -> None:
    """Write `cluster_yaml` to a file.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, cluster_yaml(cluster))


def cluster_presets() -> list[str]:
    """Names of the clusters that come with Wingspan."""
    folder = resources.files("wingspan.specs") / "presets" / "clusters"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: people read it, and anchors are for machines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the interface's
        return True
