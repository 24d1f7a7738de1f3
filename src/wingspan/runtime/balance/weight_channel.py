"""Bytes from one rank to another beside the steps, on a process group of their own.

A step's exchanges and these never mix: the group has its own connections, and every move its own tag. It is gloo
over the processor's memory also where the model runs on GPUs, so that no step waits behind it in a queue of kernels.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from wingspan.errors import InputError
from wingspan.runtime.transport.transport import PEERS_WAIT
from wingspan.runtime.transport.work_handle import WorkHandle


class WeightChannel:
    """Collective to make. The transfers are waited for in a thread (their `wait` lets other threads run).

    Raises:
        InputError: the ranks are no process group of torch.distributed.
    """

    def __init__(self) -> None:
        if not dist.is_initialized():
            raise InputError("`rebalance` moves experts by torch.distributed; use `transport` torch or shm")
        self._group = dist.new_group(backend="gloo", timeout=PEERS_WAIT)

    def send(self, raw_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
        """Start to send bytes; `raw_B` must stay as it is until `wait` returns."""
        return dist.isend(raw_B, rank, group=self._group, tag=tag)

    def receive(self, buffer_B: torch.Tensor, rank: int, tag: int) -> WorkHandle | None:
        """Start to receive bytes into all of `buffer_B`."""
        return dist.irecv(buffer_B, rank, group=self._group, tag=tag)
