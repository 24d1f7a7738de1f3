"""One colour for one thing, on every page.

The hues are Okabe and Ito's, chosen so that people with any common colour blindness tell them apart
(https://jfly.uni-koeln.de/color/). Computing is warm or dark, travelling cool, waiting grey.
"""

from __future__ import annotations

from wingspan.schedule.result import Operation
from wingspan.specs.memory import MemoryPart

INK = "#1f2933"
QUIET = "#7b8794"
GRID = "#e4e7eb"
LIMIT = "#b3261e"
"""A bound that should not be passed: memory capacity, a latency limit."""

OPERATIONS: dict[Operation, str] = {
    Operation.ATTENTION: "#0072b2",
    Operation.EXPERT: "#e69f00",
    Operation.DISPATCH: "#56b4e9",
    Operation.COMBINE: "#009e73",
    Operation.SHARED_EXPERT: "#f0e442",
    Operation.DENSE: "#cc79a7",
    Operation.GATE: "#d55e00",
    Operation.ALL_GATHER: "#88ccee",
    Operation.REDUCE_SCATTER: "#44aa99",
    Operation.ALL_REDUCE: "#117733",
    Operation.EMBED: "#882255",
    Operation.HEAD: "#332288",
    Operation.WAIT: "#d5dae0",
    Operation.OTHER: "#9aa5b1",
}

MEMORY = {
    MemoryPart.ATTENTION: OPERATIONS[Operation.ATTENTION],
    MemoryPart.DENSE: OPERATIONS[Operation.DENSE],
    MemoryPart.SHARED_EXPERTS: OPERATIONS[Operation.SHARED_EXPERT],
    MemoryPart.ROUTERS_AND_NORMS: OPERATIONS[Operation.GATE],
    MemoryPart.EMBEDDING_AND_HEAD: OPERATIONS[Operation.HEAD],
    MemoryPart.EXPERTS: OPERATIONS[Operation.EXPERT],
    MemoryPart.KV_CACHE: OPERATIONS[Operation.COMBINE],
    MemoryPart.ACTIVATIONS: OPERATIONS[Operation.EMBED],
    MemoryPart.BUFFERS: OPERATIONS[Operation.DISPATCH],
    MemoryPart.STAGING: OPERATIONS[Operation.REDUCE_SCATTER],
    MemoryPart.OTHER: OPERATIONS[Operation.WAIT],
}
"""Parts of memory, in the colour of the operation that uses them most."""

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#332288", "#9aa5b1", "#882255")
"""Lines and parts that are not operations, in the order in which they appear."""

WITHIN_NODE = "#56b4e9"
ACROSS_NODES = "#0072b2"

HEAT: list[tuple[float, str]] = [
    (0.0, "#fff7e6"),
    (0.25, "#fdd49e"),
    (0.5, "#e69f00"),
    (0.75, "#a6500a"),
    (1.0, "#4a1c02"),
]
"""Little to much: one hue from light to dark, so that it also reads in grey."""


def series(number: int) -> str:
    """Colour of the n-th line; beyond the last they begin anew."""
    return SERIES[number % len(SERIES)]


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on `colour` (relative luminance, WCAG 2)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#ffffff" if luminance < 0.25 else INK
