"""The cluster: its GPUs, its links at each level, and how they lie in nodes and racks.

All bandwidths are of one direction; a figure that a vendor prints for both directions is halved. Inside a scale-up
domain they are per GPU, between domains per network card, which several GPUs may share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from wingspan.errors import InputError
from wingspan.specs.cluster_files import cluster_data, cluster_presets, merged, resized_domain
from wingspan.specs.kernels import Kernels, kernels_named
from wingspan.specs.precision import Precision
from wingspan.specs.reading import Spec, parse
from wingspan.writing import write_text

__all__ = [
    "Cluster",
    "Extrapolation",
    "Gpu",
    "Link",
    "Racks",
    "cluster_presets",
    "cluster_yaml",
    "load_cluster",
    "save_cluster",
]

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


OPERATIONS = ("matmul", "experts", "attention", "dispatch", "combine", "collective")
"""Whose predictions have error bars."""


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
        if precision.arithmetic not in self.peak_flops:
            raise InputError(
                f"{self.name} has no peak_flops for {precision}; "
                f"use one of {', '.join(self.peak_flops)} for weights and activations, or add it to the cluster file"
            )
        return self.peak_flops[precision.arithmetic] * self.mfu

    @property
    def sustained_memory_bytes_per_second(self) -> float:
        """Bytes per second of a large read."""
        return self.memory_bandwidth_bytes_per_second * self.memory_bandwidth_utilisation


class Link(Spec):
    """One level of the network: a GPU's port inside a domain, a network card between domains."""

    bandwidth_bytes_per_second: Positive = Field(
        description="one direction; of all cards together where a GPU has several of its own"
    )
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


class Extrapolation(Spec):
    """That constants of the cost model come from other hardware: how much wider error bars get by it, and why."""

    because: str
    wider: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="per operation, added to the relative error of `kernels.accuracy`"
    )
    across_domains: bool = Field(
        default=False, description="of exchanges, only those that leave a scale-up domain"
    )

    @field_validator("wider")
    @classmethod
    def _known_operations(cls, wider: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(wider.keys() - set(OPERATIONS)):
            raise ValueError(f"{unknown[0]}: no such operation; use one of {', '.join(OPERATIONS)}")
        return wider


class Cluster(Spec):
    """Where a model is to run.

    Raises (through `parse`):
        InputError: the scale-up domain does not consist of whole nodes, or nodes not of whole domains. A single node
            may end with a narrower domain: three GPUs of a node of pairs are a pair and one.
    """

    name: str
    sources: dict[str, str] = Field(default={}, description="where each figure was found")
    nodes: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    gpu: Gpu
    scale_up: Link = Field(
        description="within a scale-up domain: NVLink; where a domain is one GPU it may be left out"
    )
    scale_up_domain_gpus: int = Field(
        ge=1, description="GPUs that reach each other by scale_up; 1 = none; `node` = a node's"
    )
    scale_out: Link = Field(description="between domains: a network card")
    gpus_per_network_card: int = Field(
        default=1, ge=1, description="neighbours in a node that send through one card; 1 = each has its own"
    )
    racks: Racks | None = None
    process_bytes: Positive | None = Field(
        default=None,
        description="what a rank's process holds beside weights, cache and buffers; takes the place of a deployment's "
        "reserve_share",
    )
    kernels: Kernels
    extrapolations: dict[str, Extrapolation] = Field(
        default={}, description="of what (the GPU, the network), for whoever reads the file"
    )

    @model_validator(mode="before")
    @classmethod
    def _in_few_words(cls, data: Any) -> Any:
        """Names and `base` of kernels, a domain as wide as a node, no link where nobody would use it."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if data.get("scale_up_domain_gpus") == "node":
            data["scale_up_domain_gpus"] = data.get("gpus_per_node")
        if data.get("scale_up_domain_gpus") == 1 and "scale_out" in data:
            data.setdefault("scale_up", data["scale_out"])
        kernels = data.get("kernels")
        if isinstance(kernels, str):
            data["kernels"] = kernels_named(kernels)
        elif isinstance(kernels, dict) and isinstance(kernels.get("base"), str):
            changes = {key: value for key, value in kernels.items() if key != "base"}
            data["kernels"] = merged(kernels_named(kernels["base"]).model_dump(), changes)
        return data

    @model_validator(mode="after")
    def _whole_domains(self) -> Self:
        domain, node = self.scale_up_domain_gpus, self.gpus_per_node
        if domain % node and (node % domain if self.nodes > 1 else domain > node):
            raise ValueError(
                f"scale_up_domain_gpus {domain} and gpus_per_node {node} do not divide each other; "
                f"use {node} or a multiple of it"
            )
        if self.gpus_per_network_card > node:
            raise ValueError(
                f"gpus_per_network_card {self.gpus_per_network_card} is more than the {node} GPUs of a node; "
                f"use at most {node}"
            )
        return self

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node

    @property
    def network_cards_per_node(self) -> int:
        """Cards of a node; the last is shared by fewer where its GPUs do not fill it."""
        return -(-self.gpus_per_node // self.gpus_per_network_card)

    @property
    def network_share_bytes_per_second(self) -> float:
        """Sustained bytes per second between domains that each GPU has while all that share its card send."""
        return self.scale_out.sustained_bytes_per_second / self.gpus_per_network_card

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
        """Put the same GPUs and links into nodes of another number or size: see `resized_domain`.

        A card stays shared by as many GPUs as far as a node has them.
        """
        domain = resized_domain(self.scale_up_domain_gpus, self.gpus_per_node, gpus_per_node, nodes)
        return self.model_copy(
            update={
                "nodes": nodes,
                "gpus_per_node": gpus_per_node,
                "scale_up_domain_gpus": domain,
                "gpus_per_network_card": min(self.gpus_per_network_card, gpus_per_node),
            }
        )


def load_cluster(name_or_path: str) -> Cluster:
    """A preset by its name, a cluster from a YAML file, or either with variants: see `cluster_data`.

    Raises:
        InputError: neither a preset nor a readable, valid file; the line names the presets.
    """
    data = cluster_data(name_or_path)
    return parse(
        Cluster, data, f"preset {name_or_path}" if name_or_path in cluster_presets() else name_or_path
    )


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


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: people read it, and anchors are for machines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the interface's
        return True
