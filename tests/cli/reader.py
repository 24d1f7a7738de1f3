"""Someone who has a clone and pastes a page's blocks into a shell there, in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.pages import REPOSITORY, Block, blocks, lines

NOT_HERE = {
    "the test's own environment is installed already": (
        "python3.11 -m venv",
        "source .venv",
        "pip install",
        "apt-get",
    ),
    "needs a GPU": ("torchrun --nproc-per-node 8 -m wingspan.cli.main calibrate --device cuda",),
    "needs another project's measurements": ("git clone", "wingspan validate --"),
    "takes many minutes": ("python -m benchmarks.", "wingspan compare models/tiny --serving"),
}
"""Why a line is not run here, and how such lines begin."""

_RANKS = {"run", "record", "calibrate", "compare", "bench", "serve", "testbed", "make", "curl", "mpirun"}

SERVERS = ("make serve", "wingspan serve")
"""What goes on until it is interrupted."""

_OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")

_MACHINE = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
"""What the pages tell a reader to add who is root, or who has fewer cores than ranks."""

_CLONED = (
    "README.md",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    "benchmarks",
    "docs",
    "models",
    "src",
)
_CLONED_TOO = ("tests", "training")


@dataclass(frozen=True)
class Screen:
    """What a page shows below a block, and what that block's last line printed."""

    command: str
    shown: Block
    printed: str

    @property
    def measured(self) -> bool:
        """Whether its figures come from a clock: they differ each time, all else does not."""
        return starts_ranks(self.command)


class Reader:
    """A shell in a folder that looks like a clone, and the servers that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*_CLONED, *_CLONED_TOO):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / ".venv").symlink_to(sys.prefix)
        path = os.pathsep.join((f"{sys.prefix}/bin", os.environ["PATH"]))
        # A reader's `make` is none that another make started, and says nothing of folders.
        own = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
        self.environment = {**own, **_MACHINE, "COLUMNS": "80", "PATH": path}
        self.servers: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.testbeds: list[str] = []  # the lines that take them down

    def reads(self, page: Path) -> Iterator[Screen]:
        """Do what a page says; each of its screens with what was printed instead.

        Raises
        ------
        AssertionError
            A line ends with another exit code than 0, or a session (`console`) prints something else.
        """
        command, printed = "", None
        for block in blocks(page):
            if block.language == "text" and printed is not None:
                yield Screen(command, block, printed)
                printed = None
            elif block.language == "sh":
                command, printed = block.commands[-1], self._types(block)
            elif block.language == "console":
                _, said = self._runs("bash", "-c", "\n".join(block.commands))
                shown = [line for line in block.text.splitlines() if not line.startswith("$ ")]
                assert lines(said) == lines("\n".join(shown)), f"line {block.line}\n{said}"
            elif block.language == "python":
                code, said = self._runs(sys.executable, "-c", block.text)
                assert code == 0, f"line {block.line}\n{said}"

    def leaves(self) -> None:
        """Interrupt the servers as Ctrl-C does, which is how they end well; remove what a page that failed left up."""
        for command in self.testbeds:
            self._runs("bash", "-c", command)
        for command, server in self.servers:
            os.killpg(server.pid, signal.SIGINT)
            try:
                code = server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                code = server.wait()
            assert code == 0 or command.startswith("make"), f"{command}: exit code {code}"

    def _types(self, block: Block) -> str | None:
        """What the last line of a block printed; None where that is not run here."""
        printed = None
        for command in block.commands:
            printed = None if why_not(command) else self._type(command, block.line)
        return printed

    def _type(self, command: str, line: int) -> str:
        typed = command
        if command.startswith("make "):  # the environment stands, whatever file is newer
            typed = command.replace("make ", "make --old-file .venv/installed ", 1)
        if command.startswith(SERVERS):
            return self._starts(typed)
        self._remember_testbed(command)
        if not starts_ranks(command):  # how far a prediction is goes to standard error, where it takes long
            typed = (
                f"{{ {typed.partition(' #')[0]}; }} 2> said.txt || {{ code=$?; cat said.txt; exit $code; }}"
            )
        code, printed = self._runs("bash", "-c", typed)
        assert code == 0, f"line {line}: {command}\nexit code {code}\n{printed}"
        return printed

    def _remember_testbed(self, command: str) -> None:
        if match := re.match(r"wingspan testbed (up|down)( --name \w+)?", command):
            down = f"wingspan testbed down{match[2] or ''}"
            self.testbeds = [other for other in self.testbeds if other != down]
            if match[1] == "up":
                self.testbeds.append(down)

    def _runs(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        return done.returncode, done.stdout

    def _starts(self, command: str) -> str:
        """What a server prints until it is ready."""
        out = self.folder / f"server{len(self.servers)}.txt"
        with out.open("wb") as stream:
            server = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.servers.append((command, server))
        while " ready after " not in out.read_text():
            assert server.poll() is None, f"{command}\n{out.read_text()}"
            time.sleep(0.1)
        return out.read_text()


def starts_ranks(command: str) -> bool:
    """Whether a line runs a model, or measures this machine; all others predict."""
    return bool(_RANKS & set(command.split()[:2]))


def why_not(command: str) -> str | None:
    """Why a line is not run on this machine, or None."""
    if command.startswith("wingspan testbed") and (os.geteuid() != 0 or not shutil.which("tc")):
        return "needs root and iproute2"
    if command.startswith("mpirun") and not shutil.which("mpirun"):
        return "needs Open MPI"
    return next((why for why, begins in NOT_HERE.items() if command.startswith(begins)), None)


@contextmanager
def someone(folder: Path) -> Iterator[Reader]:
    """A reader in this folder, who leaves no server behind."""
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.leaves()
