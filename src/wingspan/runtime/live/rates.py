"""How fast bytes move here, measured before the first step: links for the prediction, the courier for the moves."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from wingspan.runtime.live.courier import Courier
from wingspan.runtime.measuring.calibrate import Sample, measure_links
from wingspan.runtime.transport.transport import Transport

_BYTES = 1 << 18
_TRIES = 3


@dataclass(frozen=True)
class Rates:
    """Bytes per second of one rank, all ranks sending at once: within its node, to other nodes, by the courier."""

    within: float
    across: float
    courier: float


def measure_rates(transport: Transport, courier: Courier, device: torch.device) -> Rates:
    """Collective; the same on all ranks. On one node, and with one rank per node, both kinds of link are one."""
    links = measure_links(transport, device, (_BYTES,))
    return Rates(
        _rate(links.within or links.across),
        _rate(links.across or links.within),
        _courier_rate(transport, courier),
    )


def _rate(samples: list[Sample]) -> float:
    sent_bytes, seconds = samples[-1]
    return sent_bytes / seconds


def _courier_rate(transport: Transport, courier: Courier) -> float:
    """Every rank sends to the next: its best try, then the slowest rank's."""
    world = transport.world
    raw_B, buffer_B = torch.ones(_BYTES, dtype=torch.uint8), torch.empty(_BYTES, dtype=torch.uint8)
    best = float("inf")
    for tag in range(_TRIES):
        start = time.perf_counter()
        receiving = courier.receive(buffer_B, (world.rank - 1) % world.size, tag)
        sending = courier.send(raw_B, (world.rank + 1) % world.size, tag)
        for pending in (receiving, sending):
            if pending is not None:
                pending.wait()
        best = min(best, time.perf_counter() - start)
    return _BYTES / float(transport.share(torch.tensor([best], dtype=torch.float64)).max())
