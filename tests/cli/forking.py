"""Run many command lines quickly: one process imports once and forks for each, and says how each ended.

    python -m tests.cli.forking KIND FOLDER < cases

KIND is `light` (torch cannot be imported) or `runtime` (torch is imported before the first fork). A case is one line,
a JSON list of a list of arguments and a map of files to write into FOLDER before (content in base64; they go again);
its outcome is one line of JSON.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).parents[2]
LIMIT_SECONDS = 10
"""Of the processor, so that it holds on a loaded machine; of the clock a multiple."""
_LIMIT_OF_CLOCK_SECONDS = 60.0
_PR_SET_CHILD_SUBREAPER = 36
_MOST_MEMORY_BYTES = {"light": 6 << 30, "runtime": 24 << 30}
_TORCH = ("torch", "transformers", "safetensors", "tokenizers", "greenlet")
_RUNTIME = ("wingspan.runtime.api", "transformers.models.auto.modeling_auto", "transformers.models.mixtral")


@dataclass(frozen=True)
class Outcome:
    """How one command line ended; `code` is None where it took longer than the limit of the clock."""

    arguments: list[str]
    code: int | None
    out: str
    err: str
    seconds: float
    left_processes: int
    changed: list[str]
    """Files of FOLDER that are new, gone, or not what they were."""


@dataclass(frozen=True)
class Case:
    """A command line, and files that it needs beside those of the folder."""

    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)

    def line(self) -> str:
        """As the forking process reads it."""
        files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        return json.dumps([self.arguments, files]) + "\n"


def outcomes(kind: str, folder: Path, cases: Iterable[Case]) -> Iterator[Outcome]:
    """How each command line ends, run in `folder`, where nothing else may change."""
    command = [sys.executable, "-m", "tests.cli.forking", kind, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    lines = "".join(case.line() for case in cases)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            threading.Thread(target=_feed, args=(process.stdin, lines)).start()
            for line in process.stdout:
                yield Outcome(**json.loads(line))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _feed(stream: IO[str], lines: str) -> None:
    with suppress(BrokenPipeError), stream:
        stream.write(lines)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "light":
        for name in _TORCH:
            sys.modules[name] = None  # to import it fails, as where it is not installed
    for name in ("numpy", "scipy.optimize", "pyarrow.parquet") if kind == "light" else _RUNTIME:
        import_module(name)
    from wingspan.cli import main as cli
    from wingspan.cli import run_job  # noqa: F401

    # Orphans of a case become children of this process, so that they can be found and ended.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    answers = os.fdopen(os.dup(1), "w")
    kept = set(_files(folder))
    os.chdir(folder)
    # One mistaken size must not take the machine's memory: it becomes an error of that case.
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES[kind],) * 2)
    for line in sys.stdin:
        arguments, files = json.loads(line)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        before = _files(folder)
        outcome = _one(arguments, cli.main, folder, before)
        _clear(folder, kept)
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


def _one(arguments: list[str], command: object, folder: Path, before: dict[str, object]) -> Outcome:
    out, err = (os.memfd_create(name) for name in ("out", "err"))
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(arguments, command, out, err)
    code = _wait(pid)
    seconds = time.monotonic() - start
    left = _end_what_is_left()
    texts = [os.pread(fd, 1 << 20, 0).decode(errors="replace") for fd in (out, err)]
    os.close(out)
    os.close(err)
    after = _files(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Outcome(arguments, code, texts[0], texts[1][:4000], seconds, left, changed)


def _become(arguments: list[str], command: object, out: int, err: int) -> None:
    os.setsid()
    used = sum(os.times()[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + LIMIT_SECONDS,) * 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = ["wingspan", *arguments]
    code = 99
    try:
        command()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> int | None:
    deadline = time.monotonic() + _LIMIT_OF_CLOCK_SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _end_what_is_left() -> int:
    """Children that a case left, in whichever process group; they are ended. A planner may take a moment to go."""
    deadline = time.monotonic() + 1.0
    left = set()
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return len(left)
        if found:
            continue
        if time.monotonic() > deadline:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            left |= set(children)
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        time.sleep(0.005)


def _clear(folder: Path, kept: set[str]) -> None:
    for name in sorted(set(_files(folder)) - kept, reverse=True):
        path = folder / name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _files(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for entry in os.scandir(folder):
        about = entry.stat(follow_symlinks=False)
        found[entry.name] = [about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino]
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("closed"):
            found |= {f"{entry.name}/{name}": value for name, value in _files(Path(entry.path)).items()}
    return found


if __name__ == "__main__":
    main()
