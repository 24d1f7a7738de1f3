"""The work behind `wingspan calibrate`: start or join the ranks, measure, write the file, say what was found."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.runtime.world import check_ranks_per_node, world_from_environment


def execute(
    ranks: int | None, ranks_per_node: int | None, out: Path | None, name: str, device_name: str
) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.absolute().parent} does not exist; create it")
    if device_name not in ("cpu", "cuda"):
        raise InputError(f"--device {device_name}: use cpu or cuda")
    world = world_from_environment(os.environ, ranks_per_node)
    size = _size(ranks, world)
    per_node = ranks_per_node or size
    if world is None:
        check_ranks_per_node(size, per_node)
    # Only now the seconds that importing torch takes.
    try:
        import psutil
        import torch
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[runtime]'") from None
    from wingspan.runtime.calibrate import measure
    from wingspan.runtime.device import select_device
    from wingspan.runtime.launch import join_ranks, run_ranks
    from wingspan.runtime.measured_cluster import measured_cluster

    device = select_device(device_name)

    def work(transport: Any) -> None:
        found = measure(transport, device)
        hosts = transport.gather(socket.gethostname())
        if hosts is None:
            return
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            chip, memory = properties.name, float(properties.total_memory)
        else:
            chip = f"{platform.machine()} CPU, {os.cpu_count()} cores"
            memory = float(psutil.virtual_memory().total // max(Counter(hosts).values()))
        _finish(measured_cluster(found, name, chip, memory), found, out)

    if world is not None:
        join_ranks(work, world, device)
    else:
        run_ranks(work, size, per_node, device)


def _size(ranks: int | None, world: Any) -> int:
    if world is None:
        size = 1 if ranks is None else ranks
        if size < 1:
            raise InputError(f"--ranks {size}: use 1 or more")
        return size
    if ranks not in (None, world.size):
        raise InputError(f"--ranks {ranks}, but the launcher started {world.size}; leave --ranks out")
    return int(world.size)


def _finish(cluster: Any, found: Any, out: Path | None) -> None:
    """On rank 0: the file, and a summary on standard error (standard output may be the file)."""
    from wingspan.cli.calibrate_view import show
    from wingspan.specs.cluster import cluster_yaml, save_cluster

    show(cluster, found)
    if out is None:
        sys.stdout.write(cluster_yaml(cluster))
    else:
        save_cluster(cluster, out)
        print(f"wrote {out}", file=sys.stderr)
