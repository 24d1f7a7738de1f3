"""Processes with the environment that a launcher would give them, forked so that none imports torch anew."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from wingspan.errors import WingspanError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.launch.meeting.protocol import Patience
from wingspan.runtime.ranks.nodes import Node, enter


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, what it said and told meanwhile, and after how long."""

    code: int
    said: str
    told: str
    seconds: float


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def by_hand(size: int, port: str, **more: str) -> list[dict[str, str]]:
    """RANK and WORLD_SIZE alone, as a person sets them."""
    return [{"RANK": str(r), "WORLD_SIZE": str(size), "MASTER_PORT": port, **more} for r in range(size)]


def launched(
    environments: Sequence[Mapping[str, str]],
    folder: Path,
    work: Callable[[Group], str],
    *,
    namespaces: Sequence[str] | None = None,
    late_seconds: Sequence[float] = (),
    limit_seconds: float = 20.0,
    ranks_per_node: int | None = None,
) -> list[End]:
    """Find the group in each environment and do `work` with it; what it returns is said.

    Args:
        environments: one per process.
        folder: for what they say.
        work: with the group.
        namespaces: the network of each; None: this one.
        late_seconds: after which each starts.
        limit_seconds: their patience. A process that stays 40 s longer dies of SIGALRM.
        ranks_per_node: the hint.
    """
    start, pids = time.monotonic(), {}
    for number, environment in enumerate(environments):
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(limit_seconds) + 40)
            if namespaces is not None:
                enter(Node(namespaces[number], "", ""))
            time.sleep(late_seconds[number] if late_seconds else 0)
            patience = Patience(limit_seconds, _teller(folder / f"told{number}"), word_seconds=0.5)
            _be(environment, work, folder / f"said{number}", patience, ranks_per_node)
        pids[pid] = number
    ends: dict[int, End] = {}
    for pid, number in pids.items():
        _, status = os.waitpid(pid, 0)
        ends[number] = End(
            os.waitstatus_to_exitcode(status),
            _read(folder / f"said{number}"),
            _read(folder / f"told{number}"),
            time.monotonic() - start,
        )
    return [ends[number] for number in range(len(pids))]


def _be(
    environment: Mapping[str, str],
    work: Callable[[Group], str],
    said: Path,
    patience: Patience,
    ranks_per_node: int | None,
) -> NoReturn:
    code = 3
    try:
        os.environ.update(environment)
        said.write_text(work(_met(environment, ranks_per_node, patience)))
        code = 0
    except WingspanError as error:
        said.write_text(str(error))
        code = error.exit_code
    except BaseException as error:
        said.write_text(repr(error))
    finally:
        os._exit(code)


def _met(environment: Mapping[str, str], ranks_per_node: int | None, patience: Patience) -> Group:
    group = Group.find(environment, None, ranks_per_node, "torch")
    return group.meet(environment, torch.device("cpu"), patience)


def _teller(file: Path) -> Callable[[str], None]:
    def tell(line: str) -> None:
        with file.open("a") as opened:
            opened.write(line + "\n")

    return tell


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""
