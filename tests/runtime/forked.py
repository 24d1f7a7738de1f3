"""Run a function on several real ranks, from inside a test."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from wingspan.errors import WingspanError
from wingspan.runtime.launch.meeting.place import Place
from wingspan.runtime.launch.meeting.protocol import Patience
from wingspan.runtime.launch.start import join_ranks, run_ranks
from wingspan.runtime.ranks.nodes import Nodes
from wingspan.runtime.ranks.world import Launch
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


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

    run_ranks(write_result, size, ranks_per_node or size, CPU, nodes)
    return [pickle.loads((folder / f"rank{r}.pickle").read_bytes()) for r in range(size)]


def unsupervised(work: Callable[[Transport], None], size: int, folder: Path) -> tuple[list[int], list[str]]:
    """Exit codes and last words of ranks whose launcher only starts them, as Slurm's does.

    A rank that stays for half a minute dies of SIGALRM.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pids = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.environ["MASTER_PORT"] = str(port)
            _be_rank(
                work, Launch("the test", "RANK", "WORLD_SIZE", rank, size, rank, size), folder / f"said{rank}"
            )
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return codes, [(folder / f"said{rank}").read_text() for rank in range(size)]


def _be_rank(work: Callable[[Transport], None], launch: Launch, words: Path) -> NoReturn:
    code = 1
    try:
        signal.alarm(30)
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT), 2)
        join_ranks(work, Place.find(os.environ, launch, CPU, Patience(limit_seconds=20)), CPU)
        code = 0
    except WingspanError as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(code)
