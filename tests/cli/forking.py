"""Run many command lines quickly: one process imports once and forks for each, and says how each ended.

    python -m tests.cli.forking KIND FOLDER < cases

KIND is `light` (torch cannot be imported) or `runtime` (torch is imported before the first fork). A case is one line,
a JSON list of arguments; its outcome is one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LIMIT_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_TORCH = ("torch", "transformers", "safetensors", "tokenizers", "greenlet")


@dataclass(frozen=True)
class Outcome:
    """How one command line ended; `code` is None where it took longer than the limit."""

    arguments: list[str]
    code: int | None
    out: str
    err: str
    seconds: float
    left_processes: int
    changed: list[str]
    """Files of FOLDER that are new, gone, or not what they were."""


def outcomes(kind: str, folder: Path, cases: Iterable[list[str]]) -> Iterator[Outcome]:
    """How each command line ends, run in `folder`, where nothing may change."""
    command = [sys.executable, "-m", "tests.cli.forking", kind, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    lines = "".join(json.dumps(case) + "\n" for case in cases)
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
            process.stdin.write(lines)
            process.stdin.close()
            for line in process.stdout:
                yield Outcome(**json.loads(line))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "light":
        sys.meta_path.insert(0, _Refuse())
        import numpy  # noqa: F401
        import scipy.optimize  # noqa: F401
    else:
        pass
    from wingspan.cli import main as cli
    from wingspan.cli import run_job  # noqa: F401

    # Orphans of a case become children of this process, so that they can be found and ended.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    answers = os.fdopen(os.dup(1), "w")
    before = _files(folder)
    os.chdir(folder)
    for line in sys.stdin:
        outcome = _one(json.loads(line), cli.main, folder, before)
        before = _files(folder) if outcome.changed else before
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


class _Refuse:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in _TORCH:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


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
    return Outcome(arguments, code, texts[0][:4000], texts[1][:4000], seconds, left, changed)


def _become(arguments: list[str], command: object, out: int, err: int) -> None:
    os.setsid()
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
    deadline = time.monotonic() + LIMIT_SECONDS
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
