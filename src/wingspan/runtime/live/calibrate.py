"""How fast bytes move here, measured before the first step: links for the prediction, the courier for the moves."""

from __future__ import annotations

import time

import torch

from wingspan.runtime.live.courier import Courier
from wingspan.runtime.transport import Transport

_BYTES = 1 << 18
_ROUNDS = 3


def link_rates(transport: Transport, device: torch.device) -> tuple[float, float]:
    """Bytes per second of one rank, one direction: to a rank of its own node, to one of the next. Collective.

    All ranks send at once, so what they share is shared. On a single node both are the same.
    """
    world = transport.world
    across = _rate(transport, device, min(world.ranks_per_node, world.size // 2))
    if world.ranks_per_node == 1 or world.ranks_per_node >= world.size:
        return across, across
    within = _rate(transport, device, shift=1)
    return within, across


def courier_rate(courier: Courier, transport: Transport) -> float:
    """Bytes per second of one rank through the courier, all ranks sending at once. Collective."""
    world = transport.world
    raw_B, buffer_B = torch.ones(_BYTES, dtype=torch.uint8), torch.empty(_BYTES, dtype=torch.uint8)
    times = []
    for tag in range(_ROUNDS):
        start = time.monotonic()
        receiving = courier.receive(buffer_B, (world.rank - 1) % world.size, tag)
        sending = courier.send(raw_B, (world.rank + 1) % world.size, tag)
        for pending in (receiving, sending):
            if pending is not None:
                pending.wait()
        times.append(time.monotonic() - start)
    return _agreed(transport, min(times))


def _rate(transport: Transport, device: torch.device, shift: int) -> float:
    """Every rank sends to the one `shift` further."""
    world = transport.world
    sent_NB = torch.ones((_BYTES, 1), dtype=torch.uint8, device=device)
    received_NB = torch.empty_like(sent_NB)
    sent_R, received_R = [0] * world.size, [0] * world.size
    sent_R[(world.rank + shift) % world.size] = _BYTES
    received_R[(world.rank - shift) % world.size] = _BYTES
    times = []
    for _ in range(_ROUNDS):
        start = time.monotonic()
        transport.exchange_rows(received_NB, sent_NB, received_R, sent_R).wait()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.monotonic() - start)
    return _agreed(transport, min(times))


def _agreed(transport: Transport, seconds: float) -> float:
    """From the slowest rank's best time, the same on all ranks."""
    return _BYTES / float(transport.share(torch.tensor([seconds], dtype=torch.float64)).max())
