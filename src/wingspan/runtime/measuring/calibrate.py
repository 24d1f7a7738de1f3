"""Measure the machine under the ranks: matrix products, memory, and each link level through the real transport.

All ranks measure at the same time, as they would work: what they share (cores, memory, cards, links) counts. A try
takes as long as its slowest rank, because an exchange ends with it; of several tries the median is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from wingspan.runtime.transport.transport import Transport
from wingspan.runtime.transport.turns import is_bulk
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.precision import Precision

_TRIES = 5
_IN_A_ROW = 8
_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}


@dataclass(frozen=True)
class ProbeSizes:
    """What is measured: large enough that work, and not its beginning, takes the time.

    Args:
        width: of the products' square matrix.
        rows: of the products.
        read_bytes: of a matrix that no cache holds.
        message_bytes: that a rank sends at once.
        in_a_row: how many products are timed together.
    """

    width: int = 1024
    rows: Sequence[int] = (1, 16, 64, 256, 1024)
    read_bytes: int = 64 * 2**20
    message_bytes: Sequence[int] = (2**10, 2**14, 2**18, 2**20, 2**22)
    in_a_row: int = 1


CPU_SIZES = ProbeSizes()
GPU_SIZES = ProbeSizes(
    width=8192,
    rows=(1, 16, 128, 1024, 8192),
    read_bytes=4 * 2**30,
    message_bytes=(2**12, 2**16, 2**20, 2**24, 2**28),
    in_a_row=10,
)

Sample = tuple[float, float]
"""(amount, seconds): FLOP of a product, or bytes of a message."""


@dataclass(frozen=True)
class Links:
    """Samples of messages to a rank of the own node, and of another; empty where there is none."""

    within: list[Sample]
    across: list[Sample]


@dataclass(frozen=True)
class Overheads:
    """What a layer of a very small model takes, whatever its work: seconds of the mean rank in the median step.

    Args:
        attention_seconds: a layer's attention, with what lies between a layer's operations (norms, sums, Python).
        gate_seconds: a router: one product and its choice.
        experts_seconds: a rank's experts.
        dispatch_seconds, combine_seconds: an exchange by each dispatcher that was tried, with the wait for ranks that
            take turns on the same cores.
        cache: FLOP of a decoding layer's attention to its cache in BF16, and how much longer a step takes by them.
        process_bytes: what a rank's process held then: interpreter, libraries, next to no weights.
    """

    attention_seconds: float
    gate_seconds: float
    experts_seconds: float
    dispatch_seconds: dict[DispatcherKind, float]
    combine_seconds: dict[DispatcherKind, float]
    cache: Sample
    process_bytes: float


@dataclass(frozen=True)
class Measurements:
    """What one calibration found.

    Args:
        ranks: in the whole group.
        ranks_per_node: of them, on one node.
        products: samples per precision.
        read: bytes that a rank reads from memory in one pass over a large matrix, and the seconds that takes.
        links: messages at each level.
        overheads: of a layer; None: not measured.
    """

    ranks: int
    ranks_per_node: int
    products: dict[Precision, list[Sample]]
    read: Sample
    links: Links
    overheads: Overheads | None = None


def sizes_for(device: torch.device) -> ProbeSizes:
    """What is measured there."""
    return GPU_SIZES if device.type == "cuda" else CPU_SIZES


PARTS = 3
"""How often `measure` says that a part is done."""


def measure(
    transport: Transport, device: torch.device, done: Callable[[], None] = lambda: None
) -> Measurements:
    """Measure on every rank of the group at once; the same result on all of them.

    Args:
        transport: of the group.
        device: of this rank.
        done: called after products, memory and links, between measurements.
    """
    world = transport.world
    sizes = sizes_for(device)
    products = {kind: _products(transport, device, dtype, sizes) for kind, dtype in _DTYPES.items()}
    done()
    read = _read(transport, device, sizes)
    done()
    links = measure_links(transport, device)
    done()
    return Measurements(world.size, min(world.ranks_per_node, world.size), products, read, links)


def measure_links(
    transport: Transport, device: torch.device, message_bytes: Sequence[int] | None = None
) -> Links:
    """Only the links, with messages of about these sizes (the device's, if None); the same result on all ranks."""
    message_bytes = message_bytes or sizes_for(device).message_bytes
    world = transport.world
    node = [rank for rank in range(world.size) if world.node_of(rank) == world.node]
    others = [rank for rank in range(world.size) if rank not in node]
    return Links(
        within=_messages(transport, device, [r for r in node if r != world.rank], message_bytes),
        across=_messages(transport, device, others, message_bytes),
    )


def _products(
    transport: Transport, device: torch.device, dtype: torch.dtype, sizes: ProbeSizes
) -> list[Sample]:
    width = sizes.width
    right = torch.ones(width, width, dtype=dtype, device=device)
    samples = []
    for rows in sizes.rows:
        left = torch.ones(rows, width, dtype=dtype, device=device)
        out = torch.empty(rows, width, dtype=dtype, device=device)
        work = partial(_in_a_row, sizes.in_a_row, partial(torch.mm, left, right, out=out))
        seconds = _slowest(transport, device, work) / sizes.in_a_row
        samples.append((2.0 * rows * width * width, seconds))
    return samples


def _read(transport: Transport, device: torch.device, sizes: ProbeSizes) -> Sample:
    """One row times a matrix that no cache holds: its bytes are read once, as decode reads weights."""
    matrix = torch.ones(sizes.read_bytes // 4 // sizes.width, sizes.width, device=device)
    vector = torch.ones(sizes.width, device=device)
    out = torch.empty(len(matrix), device=device)
    work = partial(_in_a_row, sizes.in_a_row, partial(torch.mv, matrix, vector, out=out))
    return float(sizes.read_bytes), _slowest(transport, device, work) / sizes.in_a_row


def _in_a_row(times: int, work: Callable[[], object]) -> None:
    for _ in range(times):
        work()


def _messages(
    transport: Transport, device: torch.device, peers: list[int], message_bytes: Sequence[int]
) -> list[Sample]:
    """All ranks exchange with all of these at once, as in a dispatch, in growing sizes: bytes that each rank sends.

    Small ones several times in a row, as ranks that begin together are not quite together.
    """
    samples: list[Sample] = []
    for length in message_bytes if peers else ():
        sent = torch.zeros(len(peers), length // len(peers), dtype=torch.uint8, device=device)
        received = torch.empty_like(sent)
        in_a_row = max(1, min(_IN_A_ROW, 2**20 // length))
        work = partial(_exchange, transport, received, sent, peers, in_a_row)
        samples.append((float(sent.numel()), _slowest(transport, device, work) / in_a_row))
    return samples


def _exchange(
    transport: Transport, received: torch.Tensor, sent: torch.Tensor, peers: list[int], times: int
) -> None:
    size = transport.world.size
    rows_R = [int(rank in peers) for rank in range(size)]
    bulk = is_bulk(size * sent.numel(), size)
    for _ in range(times):
        transport.exchange_rows(received, sent, rows_R, rows_R, bulk=bulk).wait()


def _slowest(transport: Transport, device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of `work`: each try's slowest rank, the tries' median."""
    seconds = torch.empty(_TRIES + 1, dtype=torch.float64)
    for number in range(len(seconds)):
        # Begin together: sharing a value waits for everyone. The first try only warms up.
        transport.share(torch.zeros(1))
        _finish(device)
        begun = time.perf_counter()
        work()
        _finish(device)
        seconds[number] = time.perf_counter() - begun
    return float(transport.share(seconds[1:]).amax(dim=0).median())


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
