"""Memory for rows that every layer and step uses again, so that a steady state allocates nothing."""

from __future__ import annotations

import torch


class Buffers:
    """Named scratch buffers that grow to the largest size asked for, and stay.

    A buffer is valid until it is taken again under the same name: take, fill, use up, in that order.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, torch.Tensor] = {}
        self._asked_bytes: dict[str, int] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """An uninitialised contiguous tensor of that shape."""
        count = 1
        for extent in shape:
            count *= extent
        size_bytes = count * dtype.itemsize
        self._asked_bytes[name] = max(size_bytes, self._asked_bytes.get(name, 0))
        held = self._bytes.get(name)
        if held is None or held.numel() < size_bytes or held.device != device:
            # An eighth more than asked, so that slowly growing batches do not allocate at every step.
            held = torch.empty(size_bytes + size_bytes // 8, dtype=torch.uint8, device=device)
            self._bytes[name] = held
        return held[:size_bytes].view(dtype).view(shape)

    def take_asked_bytes(self) -> int:
        """The most that was asked for under every name since the last call: what these steps needed."""
        asked = sum(self._asked_bytes.values())
        self._asked_bytes.clear()
        return asked

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(held.numel() for held in self._bytes.values())
