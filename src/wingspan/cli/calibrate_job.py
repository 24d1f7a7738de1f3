"""The work behind `wingspan calibrate`: start or join the ranks, measure, write the file, say what was found."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from wingspan.cli.launched import check_wait_is_used, patience
from wingspan.cli.outputs import check_outputs, cleared_up
from wingspan.cli.progress import progress
from wingspan.cli.runtime_import import need_runtime
from wingspan.runtime.launch.group import Group
from wingspan.specs.reading import choice
from wingspan.specs.running import Device, TransportKind


def execute(
    ranks: int | None,
    ranks_per_node: int | None,
    transport: str,
    out: Path | None,
    name: str,
    device_name: str,
    wait_seconds: float | None,
) -> None:
    """Do the whole job; raises `WingspanError` where it fails."""
    check_outputs(out)
    choice(device_name, "--device", Device)
    choice(transport, "--transport", TransportKind)
    group = Group.find(os.environ, ranks, ranks_per_node, transport)
    check_wait_is_used(wait_seconds, group)
    need_runtime()
    # Only now the seconds that importing torch takes.
    from wingspan.runtime.calibration import PARTS, calibrate
    from wingspan.runtime.ranks.device import select_device

    device = select_device(device_name)
    group = group.meet(os.environ, device, patience(wait_seconds))

    def work(rows: Any) -> None:
        with progress("measuring", PARTS, quiet=rows.world.rank > 0) as advance:
            cluster, found = calibrate(rows, device, name, advance)
        if rows.world.rank == 0:
            _finish(cluster, found, out)

    with cleared_up(out):
        group.run(work, device, {"--transport": transport, "--device": device_name})


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
