"""Numbers as people read them: 1 GB = 1e9 bytes."""

from __future__ import annotations


def bytes_text(count: float) -> str:
    """A size in three digits and the largest unit that keeps it above 1: `8.51 MB`."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def seconds_text(seconds: float) -> str:
    """A duration in three digits, in seconds, milliseconds or microseconds: `12.3 ms`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
