"""How busy this machine is with other work while something is measured on it."""

from __future__ import annotations

import time

import psutil


class OtherWork:
    """Counts from when it is made. What ends meanwhile, of this process's children, counts as others' work."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._before = _others_seconds()

    def share(self) -> float:
        """Share of this machine's processors that work beside this process and its children has taken."""
        seconds = time.monotonic() - self._begun
        others = _others_seconds() - self._before
        return min(1.0, max(0.0, others / (seconds * (psutil.cpu_count() or 1))))


def _others_seconds() -> float:
    spent = psutil.cpu_times()._asdict()
    # Guests' time is in `user` too.
    idle = {"idle", "iowait", "guest", "guest_nice"}
    busy = sum(seconds for kind, seconds in spent.items() if kind not in idle)
    return float(busy) - _own_seconds()


def _own_seconds() -> float:
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
