"""However a command is ended from outside: one line, no traceback, the exit code of a shell, and no process left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from tests.cli.command import REPOSITORY, TINY
from wingspan.cli import main as cli
from wingspan.errors import InputError
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")
WINGSPAN = [sys.executable, "-m", "wingspan.cli.main"]
REAL_TIME = signal.SIGRTMIN + 1
ENDINGS = {
    signal.SIGTERM: "wingspan: ended by signal SIGTERM",
    signal.SIGHUP: "wingspan: ended by signal SIGHUP",
    signal.SIGUSR1: "wingspan: ended by signal SIGUSR1",
    signal.SIGXCPU: "wingspan: ended by signal SIGXCPU",
    signal.SIGINT: "wingspan: interrupted",
    REAL_TIME: "wingspan: ended by signal 35 (SIGRTMIN+1)",
}


@contextmanager
def command(work: Callable[[], object], words: Path, output: int = 1) -> Iterator[int]:
    """The pid of a process with a session of its own, in which the command line does `work`; none may be left."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(output, 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        cli.application = lambda *_: lambda **_: work()
        try:
            cli.main()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        finally:
            os._exit(99)
    try:
        yield pid
    finally:
        assert in_session(pid) == []


def in_session(leader: int) -> list[psutil.Process]:
    """Processes of its session that still live."""
    left = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return left


def sleeping_ranks(folder: Path) -> Callable[[], None]:
    """Three ranks that leave their pids in the folder and sleep."""

    def sleep(transport: Transport) -> None:
        (folder / f"pid{transport.world.rank}").write_text(str(os.getpid()))
        time.sleep(60)

    return lambda: run_ranks(sleep, 3, 3, CPU)


def pid_of(folder: Path, rank: int) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        files = [folder / f"pid{r}" for r in range(3)]
        if all(file.exists() and file.read_text() for file in files):
            return int(files[rank].read_text())
        time.sleep(0.02)
    raise AssertionError("the ranks did not start")


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_to_the_launcher(number, tmp_path):
    with command(sleeping_ranks(tmp_path), tmp_path / "words") as pid:
        pid_of(tmp_path, 0)
        os.kill(pid, number)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + number
    assert (tmp_path / "words").read_text().splitlines() == [ENDINGS[number]]


def test_an_interrupt_of_all_as_a_terminal_sends_it(tmp_path):
    with command(sleeping_ranks(tmp_path), tmp_path / "words") as pid:
        pid_of(tmp_path, 0)
        os.killpg(pid, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (tmp_path / "words").read_text() == "wingspan: interrupted\n"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGINT, "SIGINT"),
        (signal.SIGHUP, "SIGHUP"),
        (signal.SIGRTMIN, "34 (SIGRTMIN)"),
        (REAL_TIME, "35 (SIGRTMIN+1)"),
        (signal.SIGRTMAX, "64 (SIGRTMIN+30)"),
    ],
)
def test_a_signal_to_a_rank(number, name, tmp_path):
    with command(sleeping_ranks(tmp_path), tmp_path / "words") as pid:
        os.kill(pid_of(tmp_path, 1), number)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    said = (tmp_path / "words").read_text()
    assert said == f"wingspan: rank 1 was killed by signal {name}; the other ranks were ended\n"


def test_a_signal_amid_the_start_leaves_nobody(tmp_path):
    """At moments throughout the start of eight ranks."""
    for moment in range(20):
        with command(lambda: run_ranks(lambda _: time.sleep(60), 8, 8, CPU), tmp_path / "words") as pid:
            time.sleep(0.002 * moment)
            os.kill(pid, signal.SIGTERM)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            # Before the command line is reached, the signal does what it always does.
            assert code in (128 + signal.SIGTERM, -signal.SIGTERM)


def test_a_hang_up_that_nohup_ignores_ends_nothing(tmp_path):
    def work() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        raise InputError("went on")

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command(work, tmp_path / "words") as pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "words").read_text() == "wingspan: went on\n"


def printing(_: Transport) -> None:
    for _ in range(100_000):
        print("0123456789" * 10)


@pytest.mark.parametrize("print_much", [lambda: printing(None), lambda: run_ranks(printing, 2, 2, CPU)])
@pytest.mark.parametrize("reader", ["left", "full", "closed"])
def test_output_that_cannot_leave(print_much, reader, tmp_path):
    """The command's own, and its ranks'."""

    if reader == "left":
        read_end, output = os.pipe()
        os.close(read_end)
    else:
        output = os.open(*{"full": ("/dev/full", os.O_WRONLY), "closed": (os.devnull, os.O_RDONLY)}[reader])
    with command(print_much, tmp_path / "words", output) as pid:
        os.close(output)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    said = (tmp_path / "words").read_text()
    if reader == "left":
        assert said == ""
    else:
        why = {"full": "No space left on device", "closed": "Bad file descriptor"}[reader]
        assert re.fullmatch(f"wingspan: (rank [01] failed: )?standard output: {why}\n", said)


@pytest.mark.parametrize(
    "arguments",
    [["simulate", "seed", "--ranks", "8"], ["place", "--synthetic", "hot-rank", "--model", "seed"]],
)
def test_files_are_there_where_the_reader_of_the_screen_left(arguments, tmp_path):
    """`... --out d.json | head` shows the first lines and writes all."""
    files = [tmp_path / "out.json", tmp_path / "page.html"]
    read_end, output = os.pipe()
    os.close(read_end)
    asked = [
        sys.executable,
        "-m",
        "wingspan.cli.main",
        *arguments,
        "--out",
        str(files[0]),
        "--html",
        str(files[1]),
    ]
    done = subprocess.run(asked, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(output)
    assert (done.returncode, done.stderr) == (1, "")
    assert all(file.stat().st_size for file in files)


@pytest.mark.parametrize("arguments", [["simulate", "seed", "--ranks", "8"], ["--help"], ["--version"]])
@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        (">&-", 1, "wingspan: standard output: Bad file descriptor"),
        (">/dev/full", 1, "wingspan: standard output: No space left on device"),
        ("2>&-", 0, None),
        ("<&-", 0, None),
    ],
)
def test_standard_streams_that_a_shell_closed(arguments, shell, code, says):
    done = in_shell(f'"$@" {shell}', *arguments)
    assert (done.returncode, done.stderr.splitlines()) == (code, [says] if says else [])
    assert bool(done.stdout) == (code == 0)


def test_an_error_with_all_streams_closed_still_has_its_code():
    done = in_shell('"$@" <&- >&- 2>&-', "simulate", "no-such-model")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("more", [["--json"], ["--prompt", "b"]])
def test_a_run_whose_reader_has_enough(more):
    """The text and its tables come one after the other: the later ones find that the reader left."""
    done = in_shell(
        '"$@" | head -c 20', "run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "a", *more
    )
    assert len(done.stdout.encode()) == 20
    assert [line for line in done.stderr.splitlines() if not line.startswith("weights loaded")] == []


def in_shell(line: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", line, "bash", *WINGSPAN, *arguments],
        capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
    )  # fmt: skip


@pytest.mark.parametrize(
    "error", [MemoryError(), ImportError("/x/numpy/y.so: failed to map segment from shared object")]
)
def test_too_little_memory_is_no_mistake_of_its_own(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "application", lambda *_: lambda **_: fail())
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capfd.readouterr().err.startswith("wingspan: no more memory: ")
