"""Where time is read: of the host, or of a GPU, whose work goes on after the call that asked for it.

A GPU's moments are events in its streams: they cost no wait when they are taken, and become seconds when a step ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch

Moment: TypeAlias = "float | torch.cuda.Event"
"""When something was: seconds of the host's clock, or an event among a GPU's work."""


class Clock(Protocol):
    """Takes moments, and says later when they were, in seconds as `time.monotonic` counts them."""

    def now(self) -> Moment:
        """Between what was asked of this thread's device before, and what will be asked."""

    def read(self, moments: Sequence[Moment]) -> list[float]:
        """When they were; waits until they have been."""


class HostClock:
    """Work is over when its call returns."""

    @staticmethod
    def now() -> float:
        """See `Clock`."""
        return time.monotonic()

    def read(self, moments: Sequence[Moment]) -> list[float]:
        """See `Clock`."""
        return [moment for moment in moments if isinstance(moment, float)]


class CudaClock:
    """Moments in the current stream of this process's GPU."""

    def __init__(self) -> None:
        self._known = self.now()
        self._known.synchronize()
        self._known_seconds = time.monotonic()

    @staticmethod
    def now() -> torch.cuda.Event:
        """See `Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, moments: Sequence[Moment]) -> list[float]:
        """See `Clock`."""
        events = [moment for moment in moments if not isinstance(moment, float)]
        for event in events:
            event.synchronize()
        seconds = [self._known_seconds + self._known.elapsed_time(event) / 1e3 for event in events]
        if events:
            # Events tell what lies between two of them in FP32: from one that is near it stays exact.
            self._known, self._known_seconds = events[-1], seconds[-1]
        return seconds


def clock_of(device: torch.device) -> Clock:
    """The clock of what computes there."""
    return CudaClock() if device.type == "cuda" else HostClock()
