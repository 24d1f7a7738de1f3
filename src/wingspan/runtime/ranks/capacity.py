"""Whether this machine has room for ranks that are to be forked: asked before the first one is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from wingspan.errors import InputError
from wingspan.host import free_memory_bytes

_RANK_BYTES = 8_000_000
"""A rank's own memory before it has a model: measured, 6.6 to 7.1 MB beside what it shares with its parent."""

_RANK_THREADS = 5
"""Measured: its main thread, and those of gloo and of its store."""

_FILES, _FILES_PER_PEER = 20, 2
"""Open files of a rank, measured at 8 and 32 ranks: 20, and 2 for each rank that it exchanges rows with."""

_KERNEL = Path("/proc/sys/kernel")


_PREFIX_SHARE = 10
"""What ended sequences leave for others that begin alike takes at most one part in so many of the free memory."""


_KV_SHARE = 4
"""The caches of sequences under way take at most one part in so many of it: others want memory too, and forwards."""


def kv_bytes(ranks: int, model_bytes: int) -> int:
    """Memory of each rank for KV caches, on this machine and beside the weights; see `prefix_bytes`."""
    return max(0, free_memory_bytes() - ranks * model_bytes) // (_KV_SHARE * ranks)


def prefix_bytes(ranks: int, model_bytes: int) -> int:
    """Memory of each rank for prefix caching, on this machine and beside the weights.

    Args:
        ranks: that are to be forked.
        model_bytes: see `check_room`.
    """
    return max(0, free_memory_bytes() - ranks * model_bytes) // (_PREFIX_SHARE * ranks)


def check_room(ranks: int, model_bytes: int = 0, mend: str = "start fewer, or use more machines") -> None:
    """Raise `InputError` where so many ranks cannot run here at the same time.

    Args:
        ranks: to be forked.
        model_bytes: that each holds for itself: its share of the weights, or its rows.
        mend: what to do about it.
    """
    _check_files(ranks)
    for most, what, raised in _process_limits():
        if ranks * _RANK_THREADS > most:
            raise InputError(
                f"{ranks:,} ranks need {ranks * _RANK_THREADS:,} processes and threads, and {what} allows {most:,}; "
                f"start at most {most // _RANK_THREADS:,} ranks{raised}"
            )
    each, free = _RANK_BYTES + model_bytes, free_memory_bytes()
    if ranks * each > free:
        raise InputError(
            f"{ranks:,} ranks need {ranks * each / 1e9:,.2f} GB of memory ({each / 1e9:,.3f} GB each), and "
            f"{free / 1e9:,.2f} GB are free here; {mend}"
        )


def _check_files(ranks: int) -> None:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = _FILES + _FILES_PER_PEER * ranks
    if most != resource.RLIM_INFINITY and needed > most:
        raise InputError(
            f"{ranks:,} ranks need {needed:,} open files each, and the limit is {most:,}; start at most "
            f"{(most - _FILES) // _FILES_PER_PEER:,} ranks, or raise it (ulimit -n)"
        )


def _process_limits() -> Iterator[tuple[int, str, str]]:
    """(how many, what says so, how it can be raised) of all that bounds processes and threads here."""
    with suppress(ImportError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        # The superuser is not held to it.
        if most != resource.RLIM_INFINITY and os.geteuid() != 0:
            yield most, "this user's limit", ", or raise it (ulimit -u)"
    for name in ("pid_max", "threads-max"):
        with suppress(OSError, ValueError):
            yield int((_KERNEL / name).read_text()), f"the kernel's {name}", ""
