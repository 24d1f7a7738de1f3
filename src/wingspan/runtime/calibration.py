"""The machine under the ranks as a cluster: measured, named, with the memory that each rank may use."""

from __future__ import annotations

import platform
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch

from wingspan.host import usable_cores, usable_memory_bytes
from wingspan.runtime.measuring.calibrate import PARTS as MEASURED_PARTS
from wingspan.runtime.measuring.calibrate import Measurements, measure
from wingspan.runtime.measuring.cluster import measured_cluster
from wingspan.runtime.overheads import measure_overheads
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.cluster import Cluster

PARTS = MEASURED_PARTS + 1
"""How often `calibrate` says that a part is done."""


def calibrate(
    transport: Transport, device: torch.device, name: str, done: Callable[[], None] = lambda: None
) -> tuple[Cluster, Measurements]:
    """Measure on all ranks at once; the same on all of them. Collective.

    Args:
        transport: of the group.
        device: of this rank.
        name: of the cluster.
        done: called after each part.
    """
    # First, while a rank's process holds nothing else.
    overheads = measure_overheads(transport, device)
    done()
    found = replace(measure(transport, device, done), overheads=overheads)
    hosts = cast("list[str] | None", transport.gather(socket.gethostname()))
    of_device = transport.broadcast(None if hosts is None else _device(device, hosts))
    return measured_cluster(found, name, *cast("tuple[str, float]", of_device)), found


def _device(device: torch.device, hosts: list[str]) -> tuple[str, float]:
    """Its name, and the memory that each rank may use."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name, float(properties.total_memory)
    return (
        f"{platform.machine()} CPU, {usable_cores()} cores",
        float(usable_memory_bytes() // max(Counter(hosts).values())),
    )
