"""Rank 0's side of the planner: ask and look for the answer, never wait; notice a planner that died, start another."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

from wingspan.balance.planner import Proposal, Question
from wingspan.balance.planner_process import HEARTBEAT
from wingspan.errors import WingspanError
from wingspan.signals import signal_name

_END_SECONDS = 2.0


class PlannerClient:
    """A planner process and the question it works on.

    Args:
        planning_seconds: longest time for an answer.
        silence_seconds: longest time without a heartbeat.
    """

    def __init__(self, planning_seconds: float, silence_seconds: float) -> None:
        self._planning_seconds = planning_seconds
        self._silence_seconds = silence_seconds
        self.restarts = 0
        self._talk: _Talk | None = None
        self._words = _new_file()
        self._process = _new_process(self._words)

    @property
    def pid(self) -> int:
        """The number of the planner's process."""
        return self._process.pid

    @property
    def asked(self) -> bool:
        """Whether a question waits for its answer."""
        return self._talk is not None

    def ask(self, question: Question) -> None:
        """Hand over a question; one at a time. Returns at once."""
        self._talk = _Talk(self._process, question)

    def answer(self) -> Proposal | WingspanError | None:
        """The proposal (or the planner's refusal) once it is there, then the question is done; None until then."""
        if self._talk is None or self._talk.answer is None:
            return None
        answer, self._talk = self._talk.answer, None
        return answer

    def loss(self) -> str | None:
        """Why the process is of no use any more; None while all is well."""
        code = self._process.poll()
        if code is not None:
            return f"planner process {self.pid} {_ended(code)}{self._last_words()}"
        talk = self._talk
        if talk is None or talk.answer is not None:
            return None
        now = time.monotonic()
        if now - talk.heard_seconds > self._silence_seconds:
            return f"planner process {self.pid} gave no sign of life for {self._silence_seconds:g} s"
        if now - talk.asked_seconds > self._planning_seconds:
            return f"planner process {self.pid} had no plan after {self._planning_seconds:g} s"
        return None

    def restart(self) -> None:
        """End the process and start another; the question is forgotten."""
        self.close()
        self.restarts += 1
        self._talk = None
        self._words = _new_file()
        self._process = _new_process(self._words)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close_quietly(pipe)
        self._words.close()

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


class _Talk:
    """One question under way, in a thread of its own: the pipe may be full or silent, the step goes on."""

    def __init__(self, process: subprocess.Popen[bytes], question: Question) -> None:
        self.asked_seconds = self.heard_seconds = time.monotonic()
        self.answer: Proposal | WingspanError | None = None
        threading.Thread(target=self._run, args=(process, question), daemon=True).start()

    def _run(self, process: subprocess.Popen[bytes], question: Question) -> None:
        if process.stdin is None or process.stdout is None:
            return
        try:
            pickle.dump(question, process.stdin)
            process.stdin.flush()
            while self.answer is None:
                message = pickle.load(process.stdout)
                self.heard_seconds = time.monotonic()
                if message != HEARTBEAT:
                    self.answer = message
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            # The process ended, here or on its own: `loss` says so.
            return


def _new_file() -> IO[bytes]:
    """For what a process says on standard error."""
    return tempfile.TemporaryFile()


def _new_process(words: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "wingspan.balance.planner_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        # One thread: the cores belong to the steps.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )


def _ended(code: int) -> str:
    return f"was killed by signal {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _close_quietly(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        return
