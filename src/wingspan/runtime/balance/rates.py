"""How fast bytes move here, measured before the first step: a step's links, and the channel of the moves."""

from __future__ import annotations

import time

import torch

from wingspan.balance.measured import LinkRates
from wingspan.runtime.balance.weight_channel import WeightChannel
from wingspan.runtime.measuring.calibrate import Sample, measure_links
from wingspan.runtime.transport.transport import Transport

_BYTES = 1 << 18
_TRIES = 3


def measure_rates(transport: Transport, channel: WeightChannel, device: torch.device) -> LinkRates:
    """Collective; the same on all ranks. On one node, and with one rank per node, both kinds of link are one."""
    links = measure_links(transport, device, (_BYTES,))
    return LinkRates(
        _rate(links.within or links.across),
        _rate(links.across or links.within),
        _channel_rate(transport, channel),
    )


def _rate(samples: list[Sample]) -> float:
    sent_bytes, seconds = samples[-1]
    return sent_bytes / seconds


def _channel_rate(transport: Transport, channel: WeightChannel) -> float:
    """Every rank sends to the next: its best try, then the slowest rank's."""
    world = transport.world
    raw_B, buffer_B = torch.ones(_BYTES, dtype=torch.uint8), torch.empty(_BYTES, dtype=torch.uint8)
    best = float("inf")
    for tag in range(_TRIES):
        start = time.perf_counter()
        receiving = channel.receive(buffer_B, (world.rank - 1) % world.size, tag)
        sending = channel.send(raw_B, (world.rank + 1) % world.size, tag)
        for pending in (receiving, sending):
            if pending is not None:
                pending.wait()
        best = min(best, time.perf_counter() - start)
    return _BYTES / float(transport.share(torch.tensor([best], dtype=torch.float64)).max())
