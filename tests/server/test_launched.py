"""A server and its ranks, forked or started by torchrun, mpirun or Slurm: all end together, and say why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2 as httpx
import psutil
import pytest

from tests.cli.command import REPOSITORY, TINY, in_a_shell
from tests.runtime.launch.launches import free_port
from tests.server.running import Server, server

OPTIONS = ("--experts-per-rank", "4", "--dtype", "float32")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
MPIRUN = (
    "mpirun",
    "--oversubscribe",
    "-n",
    "2",
    *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
    sys.executable,
)
PROMPTS = ["def main():", "import ", "class Node:"]

needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun")


def texts(running: Server) -> list[str]:
    body = {"prompt": PROMPTS, "max_tokens": 12, "temperature": 0, "echo": True}
    answer = httpx.post(f"{running.address}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return [choice["text"] for choice in answer.json()["choices"]]


@pytest.fixture(scope="module")
def expected() -> list[str]:
    with server("--ranks", "2", *OPTIONS) as running:
        return texts(running)


def ended(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, 30)[1]


def under(running: Server) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children(recursive=True)


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("mpirun", marks=needs_mpirun)])
def test_ranks_of_a_launcher_answer_as_our_own(launcher: str, expected: list[str]) -> None:
    with server(*OPTIONS, launcher={"torchrun": TORCHRUN, "mpirun": MPIRUN}[launcher]) as running:
        ranks = under(running)
        with ThreadPoolExecutor(4) as callers:
            assert list(callers.map(lambda _: texts(running), range(4))) == [expected] * 4
        time.sleep(1)
        assert texts(running) == expected, "after they have slept"
        running.end()
        assert ended(ranks)


@needs_mpirun
def test_rows_may_go_by_mpi(expected: list[str]) -> None:
    with server(*OPTIONS, "--transport", "mpi", launcher=MPIRUN) as running:
        assert texts(running) == expected


@contextmanager
def by_slurm() -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """Two ranks, each started as Slurm starts a task; the server is rank 0."""
    port = free_port()
    both = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def environment(rank: str) -> dict[str, str]:
        return {**both, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_TASKS_PER_NODE": "2"}

    other = subprocess.Popen(
        [sys.executable, "-m", "wingspan.cli.main", "serve", TINY, "--port", "0", *OPTIONS],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment("1")},
    )
    try:
        with server(*OPTIONS, environment=environment("0")) as running:
            assert under(running) == [], "rank 0 starts no rank of its own"
            yield running, other
    finally:
        if other.poll() is None:
            other.kill()
        other.wait()


def test_a_drained_server_of_slurm_lets_its_ranks_end(expected: list[str]) -> None:
    with by_slurm() as (running, other):
        assert texts(running) == expected
        body = {"prompt": "x", "max_tokens": 60, "ignore_eos": True}
        with ThreadPoolExecutor(1) as caller:
            call = caller.submit(httpx.post, f"{running.address}/v1/completions", json=body, timeout=60)
            time.sleep(0.3)
            # Slurm signals every task; the answer under way is given all the same.
            other.send_signal(signal.SIGTERM)
            assert running.end() == 0
            assert call.result().json()["usage"]["completion_tokens"] == 60
        assert other.wait(30) == 0
    assert "every call that was under way has been answered" in "".join(running.said)


@pytest.mark.parametrize("asleep", [True, False])
def test_a_lost_rank_ends_the_server_with_a_line(asleep: bool) -> None:
    with by_slurm() as (running, other):
        texts(running)
        with ThreadPoolExecutor(1) as caller:
            if not asleep:
                body = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True}
                caller.submit(httpx.post, f"{running.address}/v1/completions", json=body, timeout=60)
                time.sleep(0.5)
            other.kill()
            assert running.process.wait(30) != 0
    said = "".join(running.said)
    assert re.search(r"rank 1 ended|a rank has ended|lost contact", said), said
    assert "Traceback" not in said


def test_a_forked_rank_that_dies_while_nobody_asks_ends_the_server_with_its_name() -> None:
    with server("--ranks", "2", *OPTIONS) as running:
        texts(running)
        ranks = under(running)
        busiest = sorted(ranks, key=lambda rank: rank.cpu_times().user)[-2:]
        busiest[0].kill()
        assert running.process.wait(30) == 1
        assert ended(ranks)
    assert re.search(r"rank [01] was killed by signal SIGKILL", "".join(running.said)), running.said


def test_ranks_that_are_given_something_else_are_refused() -> None:
    port = free_port()
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "wingspan.cli.main", "serve", TINY, "--port", "0", *OPTIONS]
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(
                in_a_shell,
                [*command, "--max-sequences", str(4 + rank)],
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                **both,
            )
            for rank in range(2)
        ]
    for one in done:
        assert one.result().returncode == 2
        assert "--sequences-per-rank" in one.result().stderr
        assert "Traceback" not in one.result().stderr
