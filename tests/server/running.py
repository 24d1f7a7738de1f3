"""A server as users start it, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.cli.command import REPOSITORY

_READY_SECONDS = 90


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    said: list[str]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Let it end; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def server(
    *options: str,
    model: str = "models/tiny",
    environment: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (sys.executable,),
) -> Iterator[Server]:
    """Start a server on a free port, by a launcher where one is given, and end it."""
    command: Sequence[str] = (
        *launcher,
        "-m",
        "wingspan.cli.main",
        "serve",
        model,
        "--port",
        "0",
        *options,
    )
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    said: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "ready after" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert ready.wait(_READY_SECONDS), said
        found = re.search(r"http://[^ ]+:\d+", "".join(said))
        assert found is not None, said
        yield Server(process, found[0], said)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        reader.join(30)
        if process.stderr is not None:
            process.stderr.close()
