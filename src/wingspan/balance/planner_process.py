"""The planner's own process: questions come in on standard input, proposals go out on standard output.

`python -m wingspan.balance.planner_process`, started by rank 0. It never imports torch, runs at low priority,
and ends with rank 0, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from typing import BinaryIO

from wingspan.errors import WingspanError

HEARTBEAT_SECONDS = 1.0
HEARTBEAT = "alive"
_PR_SET_PDEATHSIG = 1
_NICENESS = 10


class _Answers:
    """Whole messages, one at a time, from two threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, message: object) -> None:
        with self._lock:
            pickle.dump(message, self._stream)
            self._stream.flush()


def main() -> None:
    """Answer until standard input ends. The refusal of a question (`WingspanError`) is an answer too."""
    _end_with_parent()
    os.nice(_NICENESS)
    answers, busy = _Answers(sys.stdout.buffer), threading.Event()
    busy.set()
    threading.Thread(target=_beat, args=(answers, busy), daemon=True).start()
    # Seconds on a busy machine; the heart beats already.
    from wingspan.balance.planner import propose

    while True:
        busy.clear()
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        busy.set()
        try:
            answers.write(propose(question))
        except WingspanError as refusal:
            answers.write(refusal)


def _beat(answers: _Answers, busy: threading.Event) -> None:
    """Only while there is work: nobody reads at other times."""
    try:
        while busy.wait():
            answers.write(HEARTBEAT)
            time.sleep(HEARTBEAT_SECONDS)
    except BrokenPipeError:
        os._exit(0)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent or parent == 1:
            os._exit(0)


if __name__ == "__main__":
    main()
