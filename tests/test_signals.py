"""A signal ends a process whatever its main thread does, and nothing that somebody else handles is touched."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wingspan import signals
from wingspan.signals import Signalled, certain_end, kept_signals, raised_signals, signal_name

LIBC = ctypes.CDLL(None)


def in_process(work: Callable[[], None], words: Path) -> int:
    """The pid of a process that does `work` under both guards and says on standard error what it raised."""
    pid = os.fork()
    if pid == 0:
        signals._GRACE_SECONDS = 0.5
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT), 2)
        try:
            with raised_signals(), certain_end():
                os.write(2, b"ready\n")
                work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(7)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (words.exists() and words.read_text() == "ready\n"):
        time.sleep(0.01)
    time.sleep(0.3)  # from its word to its work
    return pid


def stuck() -> None:
    """In a call that no signal interrupts: a mutex locked twice."""
    mutex = ctypes.create_string_buffer(128)
    LIBC.pthread_mutex_lock(mutex)
    LIBC.pthread_mutex_lock(mutex)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGRTMIN + 2])
def test_a_process_stuck_in_a_call_ends_soon_with_a_line(number, tmp_path):
    pid = in_process(stuck, tmp_path / "words")
    os.kill(pid, number)
    start = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + number
    assert time.monotonic() - start < 10
    line = f"wingspan: ended by signal {signal_name(number)}\n"
    assert (tmp_path / "words").read_text() == "ready\n" + line


def test_a_process_that_can_end_in_good_order_does(tmp_path):
    pid = in_process(lambda: time.sleep(60), tmp_path / "words")
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert (tmp_path / "words").read_text() == "ready\nSignalled: ended by signal SIGTERM\n"


def test_what_somebody_handles_stays_theirs():
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with raised_signals(), certain_end():
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(Signalled, match="ended by signal SIGUSR2"):
                signal.raise_signal(signal.SIGUSR2)
        assert seen == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_names():
    numbers = (15, signal.SIGRTMIN, signal.SIGRTMIN + 1, signal.SIGRTMAX, 32)
    assert [signal_name(number) for number in numbers] == [
        "SIGTERM", "34 (SIGRTMIN)", "35 (SIGRTMIN+1)", "64 (SIGRTMIN+30)", "32",
    ]  # fmt: skip


class _Interrupted:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_in_a_destructor_is_kept() -> None:
    """Python drops what it raises there; everywhere else it is raised as ever."""
    with kept_signals() as came:
        victim = _Interrupted()
        del victim
        assert came == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT] * 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
