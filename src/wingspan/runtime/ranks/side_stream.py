"""A stream of a device beside the one that computes: who hands work over, and who waits for it.

A GPU runs what is asked of one stream in order, and of several at once. So what another thread asks of a stream of its
own must wait for what was asked before it was handed over, and who uses its results must wait for them. None of that
holds the host up. On the CPU work is over when its call returns, and nothing is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch

Mark = Any
"""A place in a stream's order; None on the CPU."""


class SideStream(Protocol):
    """See the file's head."""

    def mark(self) -> Mark:
        """Here, in the current stream."""

    def beside(self, mark: Mark) -> AbstractContextManager[None]:
        """What is asked inside goes to the side stream, behind that mark of another one."""

    def use(self, value: object, mark: Mark = None) -> None:
        """The current stream uses the tensors in it, which another one made, and waits for the mark first."""

    def finish(self) -> None:
        """Hold the host until all that was asked of the current stream is done."""


class NoSideStream:
    """The CPU's: work is over when its call returns."""

    def mark(self) -> Mark:
        """See `SideStream`."""
        return

    def beside(self, mark: Mark) -> AbstractContextManager[None]:  # noqa: ARG002 - the interface's
        """See `SideStream`."""
        return nullcontext()

    def use(self, value: object, mark: Mark = None) -> None:
        """See `SideStream`."""

    def finish(self) -> None:
        """See `SideStream`."""


class CudaSideStream:
    """One more stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def mark(self) -> Mark:
        """See `SideStream`."""
        return torch.cuda.current_stream().record_event()

    @contextmanager
    def beside(self, mark: Mark) -> Iterator[None]:
        """See `SideStream`."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            yield

    def use(self, value: object, mark: Mark = None) -> None:
        """See `SideStream`."""
        stream = torch.cuda.current_stream()
        if mark is not None:
            stream.wait_event(mark)
        # The allocator knows only the stream that a tensor was made in, and would give its memory away too early.
        for tensor in tensors_in(value):
            tensor.record_stream(stream)

    def finish(self) -> None:
        """See `SideStream`."""
        torch.cuda.current_stream().synchronize()


def side_stream(device: torch.device) -> SideStream:
    """One of that device."""
    return CudaSideStream(device) if device.type == "cuda" else NoSideStream()


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The GPU's tensors in a value made of dataclasses, sequences and whatever holds none."""
    if isinstance(value, torch.Tensor):
        if value.is_cuda:
            yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
