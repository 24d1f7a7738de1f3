"""Signals that end a process: their names, and how one becomes an exception instead of a sudden end.

So what was begun is cleaned up (ranks, files half written) and one line says what happened.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STANDARD_ERROR = 2
_GRACE_SECONDS = 3.0
"""The main thread ends in good order in that time, or is ended."""


class Signalled(BaseException):
    """A signal asks this process to end. Like `KeyboardInterrupt`, nothing that catches errors takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {signal_name(number)}")
        self.exit_code = 128 + number
        """A shell's way to tell of a signal."""


def signal_name(number: int) -> str:
    """SIGTERM, or 35 (SIGRTMIN+1): real-time signals are better known by number."""
    first = getattr(signal, "SIGRTMIN", None)
    if first is not None and first <= number <= signal.SIGRTMAX:
        return f"{number} (SIGRTMIN{f'+{number - first}' if number > first else ''})"
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


@contextmanager
def raised_signals() -> Iterator[None]:
    """While inside, the first signal that would end this process raises `Signalled` in the main thread.

    What somebody has set otherwise stays so: nohup's ignored hang-up, a handler.
    """
    taken = [number for number in _endings() if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def kept_signals() -> Iterator[list[int]]:
    """While inside, an interrupt or SIGTERM raises what it raises anyhow, and is kept in the list that this gives.

    Python drops what is raised where a destructor runs; who asks the list afterwards still knows of the signal.
    """
    came: list[int] = []

    def keep(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Signalled(number)

    raising = (signal.default_int_handler, _raise)
    before = {n: h for n in (signal.SIGINT, signal.SIGTERM) if (h := signal.getsignal(n)) in raising}
    for number in before:
        signal.signal(number, keep)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def certain_end() -> Iterator[None]:
    """While inside, such a signal (or an interrupt) ends this process also where its main thread is stuck in a call.

    For a thread's price: not for a process that is to fork.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    left = threading.Event()
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_await_signal, args=(read_end, left), name="signals", daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(write_end)


def forget_handlers() -> None:
    """In a forked process: signals that the parent handles do what they always do."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _endings() -> list[int]:
    """Signals from outside that end a process, without interrupts (Python raises those itself) and faults."""
    names = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU", "SIGPWR")
    numbers = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    if hasattr(signal, "SIGRTMIN"):
        numbers += range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
    return numbers


def _raise(number: int, _: FrameType | None) -> None:
    raise Signalled(number)


def _await_signal(read_end: int, left: threading.Event) -> None:
    with os.fdopen(read_end, "rb", buffering=0) as numbers:
        while said := numbers.read(1):
            if signal.getsignal(said[0]) not in (_raise, signal.default_int_handler):
                continue
            if not left.wait(_GRACE_SECONDS):
                end = Signalled(said[0])
                os.write(_STANDARD_ERROR, f"wingspan: {end}\n".encode())
                os._exit(end.exit_code)
