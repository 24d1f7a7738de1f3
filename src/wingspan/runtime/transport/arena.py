"""Where in a rank's part of the shared memory its blocks lie: each at the lowest place that fits.

So few pages are touched, and those stay in the caches.
"""

from __future__ import annotations

from collections import deque


class Arena:
    """The bytes from `start` to `end`. A block is known by its offset.

    It is its owner's from `take` on, its readers' from `publish` on, and free again after `release`.
    """

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self._end_of: dict[int, int] = {}
        self._published: deque[tuple[int, int]] = deque()
        """(publication's number, block), oldest first."""

    @property
    def size_bytes(self) -> int:
        """Most bytes of all blocks together."""
        return self._end - self._start

    @property
    def oldest(self) -> int | None:
        """The number of the oldest publication here; None without any."""
        return self._published[0][0] if self._published else None

    def take(self, size_bytes: int, align_bytes: int) -> int | None:
        """A new block, its offset a multiple of `align_bytes`; None where no place fits."""
        offset = _aligned(self._start, align_bytes)
        for first, end in sorted(self._end_of.items()):
            if offset + size_bytes <= first:
                break
            offset = max(offset, _aligned(end, align_bytes))
        if offset + size_bytes > self._end:
            return None
        self._end_of[offset] = offset + size_bytes
        return offset

    def publish(self, offset: int, number: int) -> None:
        """The block becomes publication `number`, higher than all before."""
        self._published.append((number, offset))

    def release(self, number: int) -> None:
        """Free the blocks of all publications up to that one."""
        while self._published and self._published[0][0] <= number:
            del self._end_of[self._published.popleft()[1]]

    def discard(self, offset: int) -> None:
        """Free a block that was not published."""
        del self._end_of[offset]


def _aligned(offset: int, align_bytes: int) -> int:
    return -(-offset // align_bytes) * align_bytes
