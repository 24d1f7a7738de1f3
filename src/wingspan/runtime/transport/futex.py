"""Sleep until another process changes a word of shared memory: Linux's futex, without any library.

Nobody spins: with more ranks than cores a spinning rank takes the core that the awaited one needs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

_SYSCALL = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
_WAIT, _WAKE, _ALL = 0, 1, 2**31 - 1
_STORES_STAY_IN_ORDER = platform.machine() == "x86_64"

_libc = ctypes.CDLL(None, use_errno=True)
_futex = _libc.syscall
_futex.restype = ctypes.c_long
_futex.argtypes = [
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint32,
]


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def available() -> bool:
    """Whether this machine has futexes that this file knows how to call."""
    return sys.platform == "linux" and _SYSCALL is not None


def wait(address: int, seen: int, timeout_seconds: float) -> None:
    """Sleep while the 32-bit word at `address` is `seen`, until `wake` or the time limit. May return early."""
    limit = _Timespec(int(timeout_seconds), int(timeout_seconds % 1 * 1e9))
    if _futex(_SYSCALL, address, _WAIT, seen & 0xFFFFFFFF, ctypes.addressof(limit), None, 0) < 0:
        error = ctypes.get_errno()
        if error not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            raise OSError(error, os.strerror(error))


def wake(address: int) -> None:
    """Wake all that sleep on the word."""
    _futex(_SYSCALL, address, _WAKE, _ALL, None, None, 0)


def fence(address: int) -> None:
    """Everything before happens before everything after, as other cores see it.

    x86-64 keeps stores in order by itself; elsewhere the kernel's full barrier on the way to wake nobody serves.
    """
    if not _STORES_STAY_IN_ORDER:
        wake(address)
