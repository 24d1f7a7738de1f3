"""Ranks as the processes they are: fork them, hear why each ended, and end all when one fails."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self

from wingspan.errors import InputError, LostPeerError, RunError, WingspanError
from wingspan.signals import forget_handlers, signal_name
from wingspan.streams import flush_streams, line_of
from wingspan.writing import json_text

_GATHER_CAUSES_SECONDS = 1.0
_GRACE_SECONDS = 3.0
_LOOK_SECONDS = 0.5
"""A rank whose last words are still held open by a process of its own is looked for this often."""

_LONGEST_TEXT = 2000
"""Characters of an error that are told; more is some library's data, not a reason."""

_MOST_WORDS_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1

_LIMITS = {
    errno.EAGAIN: "start fewer ranks, or raise the limit of processes (ulimit -u)",
    errno.EMFILE: "start fewer ranks, or raise the limit of open files (ulimit -n)",
    errno.ENFILE: "start fewer ranks, or raise the machine's limit of open files",
    errno.ENOMEM: "start fewer ranks, or free some memory",
}


@dataclass
class _Rank:
    """A forked rank: its process, the pipe of its last words, and what came through that so far."""

    number: int
    pid: int
    words: int
    said: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class _Failure:
    """Why a rank ended; the lowest `order` is the likeliest first cause (a lost peer is a consequence)."""

    order: int
    text: str
    exit_code: int = 1
    broken_pipe: bool = False


class Ranks:
    """Forked ranks; leaving the context ends those that still live, however it is left."""

    def __init__(self) -> None:
        self._alive: dict[int, _Rank] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _end({rank.pid for rank in self._alive.values()})
        finally:
            for rank in self._alive.values():
                os.close(rank.words)

    @property
    def words(self) -> list[int]:
        """File descriptors, of which one can be read when its rank ends or says why."""
        return [rank.words for rank in self._alive.values()]

    def start(self, number: int, live: Callable[[], None]) -> None:
        """Fork a rank that does `live` and ends.

        Raises:
            RunError: the system has no room for another process.
        """
        # A signal that comes meanwhile finds the child as a child, not as a copy of this process, and the list whole.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._alive[number] = self._fork(number, live, held)
        except OSError as error:
            mend = _LIMITS.get(error.errno or 0, "start fewer ranks")
            raise RunError(f"rank {number} could not be started: {error.strerror}; {mend}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def wait(self) -> None:
        """Until all have ended, or one has failed and the others have had a moment to say what they know.

        Raises:
            WingspanError: a rank raised it, or died.
            BrokenPipeError: the reader of standard output left.
        """
        failures: list[_Failure] = []
        deadline = float("inf")
        with selectors.DefaultSelector() as selector:
            for rank in self._alive.values():
                selector.register(rank.words, selectors.EVENT_READ, rank)
            while self._alive and time.monotonic() < deadline:
                for rank, status in self._ended(selector):
                    selector.unregister(rank.words)
                    os.close(rank.words)
                    del self._alive[rank.number]
                    if failure := _failure(rank, status):
                        failures.append(failure)
                        deadline = min(deadline, time.monotonic() + _GATHER_CAUSES_SECONDS)
        if failures:
            raise _error(min(failures, key=lambda failure: failure.order))

    def _fork(self, number: int, live: Callable[[], None], held: Iterable[int]) -> _Rank:
        parent = os.getpid()
        read_end, write_end = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            forget_handlers()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            for theirs in (read_end, *(rank.words for rank in self._alive.values())):
                os.close(theirs)
            _live(live, write_end, parent)
        os.close(write_end)
        return _Rank(number, pid, read_end)

    def _ended(self, selector: selectors.BaseSelector) -> list[tuple[_Rank, int]]:
        """Ranks that ended, with their status, after the next words or some time; takes in what they say."""
        ready = selector.select(_LOOK_SECONDS)
        if not ready:
            looked = ((rank, *os.waitpid(rank.pid, os.WNOHANG)) for rank in self._alive.values())
            return [(rank, status) for rank, pid, status in looked if pid]
        closed = [key.data for key, _ in ready if not _listen(key.data)]
        return [(rank, os.waitpid(rank.pid, 0)[1]) for rank in closed]


def _listen(rank: _Rank) -> bool:
    """Take in the next of its words, so that it can go on; whether more may come."""
    said = os.read(rank.words, _MOST_WORDS_BYTES)
    rank.said += said[: _MOST_WORDS_BYTES - len(rank.said)]
    return bool(said)


def _live(live: Callable[[], None], words: int, parent: int) -> NoReturn:
    """The whole life of a forked rank; never returns into the parent's code."""
    code = 1
    try:
        _die_with(parent)
        live()
        # Here, where it can still be told that nothing was written.
        flush_streams()
        code = 0
    except BaseException as error:
        if os.environ.get("WINGSPAN_DEBUG"):
            traceback.print_exc()
        with suppress(OSError), os.fdopen(words, "wb", closefd=False) as told:
            told.write(json_text(_last_words(error)).encode())
    finally:
        with suppress(OSError, ValueError):
            flush_streams()
        # Not sys.exit: the parent's exit handlers are not ours to run.
        os._exit(code)


def _last_words(error: BaseException) -> dict[str, object]:
    """What `_failure` reads."""
    if isinstance(error, WingspanError):
        order, text, exit_code = 2 if isinstance(error, LostPeerError) else 0, str(error), error.exit_code
    elif isinstance(error, OSError):
        order, text, exit_code = 1, line_of(error), 1
    else:
        order, text, exit_code = 1, f"{type(error).__name__}: {' '.join(str(error).split())}", 1
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]} ... ({len(text) - _LONGEST_TEXT:,} characters more)"
    broken_pipe = isinstance(error, BrokenPipeError)
    return {"order": order, "text": text, "exit_code": exit_code, "broken_pipe": broken_pipe}


def _failure(rank: _Rank, status: int) -> _Failure | None:
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if code < 0:
        name = signal_name(-code)
        return _Failure(0, f"rank {rank.number} was killed by signal {name}; the other ranks were ended")
    try:
        failure = _Failure(**json.loads(rank.said))
    except (ValueError, TypeError):
        return _Failure(1, f"rank {rank.number} ended with exit code {code} and no word")
    if failure.order == 0:
        return failure
    text = f"rank {rank.number} failed: {failure.text}"
    return _Failure(failure.order, text, failure.exit_code, failure.broken_pipe)


def _error(failure: _Failure) -> WingspanError | BrokenPipeError:
    if failure.broken_pipe:
        return BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return InputError(failure.text) if failure.exit_code == 2 else RunError(failure.text)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _end(alive: set[int]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + _GRACE_SECONDS
        while alive and time.monotonic() < deadline:
            alive -= {pid for pid in alive if _has_ended(pid)}
            time.sleep(0.01)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # known already, when a signal came between
        return True
