"""What a rank's allocator does with freed memory: keep it, or give it back. glibc's; others decide for themselves."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_LARGEST_KEPT_BYTES = 32 << 20
"""More than that at once always comes straight from the system: the most that glibc allows."""
_LARGE_BYTES = 128 << 10
"""From where on memory comes straight from the system, as long as nothing was freed: glibc's own first threshold."""


def return_freed_memory() -> None:
    """Give back to the system what this process freed: the allocator would keep it, on every rank of the machine."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_memory() -> None:
    """From now on give large tensors back to the system when they are freed, until `keep_freed_memory`.

    Otherwise the allocator would keep ever larger ones, in pieces between what stays, once it has seen one freed.
    """
    _set_option(_MMAP_THRESHOLD, _LARGE_BYTES)


def keep_freed_memory() -> None:
    """From now on keep it until `return_freed_memory`, for the next layer: it needs tensors of the same sizes.

    Otherwise the large ones' pages come and go, at a page fault for every 4 KiB: longer than to sum into them.
    """
    _set_option(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    _set_option(_TRIM_THRESHOLD, _NEVER)


def _set_option(option: int, value: int) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(option, value)
