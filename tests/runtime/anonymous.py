"""A process's own memory, now and at its most. Linux's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def anonymous_bytes() -> int:
    """This process's own memory: without pages of files, which the kernel shares and drops as it likes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


@contextmanager
def peak() -> Iterator[list[int]]:
    """The largest `anonymous_bytes` seen meanwhile, in a list of one."""
    largest, done = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            largest[0] = max(largest[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield largest
    done.set()
    watcher.join()
