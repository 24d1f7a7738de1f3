"""Run a function on several real ranks, from inside a test."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wingspan.runtime.ranks.launch import run_ranks
from wingspan.runtime.ranks.nodes import Nodes
from wingspan.runtime.transport.transport import Transport


def on_ranks(
    work: Callable[[Transport], Any],
    size: int,
    folder: Path,
    ranks_per_node: int | None = None,
    nodes: Nodes | None = None,
) -> list[Any]:
    """`work`'s return value of every rank, in rank order; each rank is a forked process, in its node if any."""

    def write_result(transport: Transport) -> None:
        value = work(transport)
        (folder / f"rank{transport.world.rank}.pickle").write_bytes(pickle.dumps(value))

    run_ranks(write_result, size, ranks_per_node or size, torch.device("cpu"), nodes)
    return [pickle.loads((folder / f"rank{r}.pickle").read_bytes()) for r in range(size)]
