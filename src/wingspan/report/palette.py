"""One colour for one thing, on every page, by day and by night.

A figure names its colours (`var(--blue)`); `style` says what they are on a light page and on a dark one, and the
page's script puts them in. The hues are Okabe and Ito's, chosen so that people with any common colour blindness tell
them apart (https://jfly.uni-koeln.de/color/). Computing is warm or dark, travelling cool, waiting grey.
"""

from __future__ import annotations

from wingspan.schedule.result import Operation
from wingspan.specs.memory import MemoryPart

SHADES: dict[str, tuple[str, str]] = {
    "ink": ("#1f2933", "#e2e7ec"),
    "faint": ("#a7b1bc", "#6b7885"),
    "quiet": ("#5f6b78", "#9dabb9"),
    "line": ("#e1e5ea", "#38434f"),
    "ground": ("#f5f7fa", "#12171d"),
    "paper": ("#ffffff", "#1b222a"),
    "limit": ("#b3261e", "#ff7b72"),
    "alarm": ("#fdecea", "#4a1512"),
    "blue": ("#0072b2", "#2b8fd0"),
    "orange": ("#e69f00", "#e69f00"),
    "sky": ("#56b4e9", "#7fcdf7"),
    "green": ("#009e73", "#10a67c"),
    "yellow": ("#f0e442", "#ddd24a"),
    "pink": ("#cc79a7", "#d58ab4"),
    "vermilion": ("#d55e00", "#e3701b"),
    "cyan": ("#88ccee", "#b0dcf3"),
    "teal": ("#44aa99", "#56b9a9"),
    "forest": ("#117733", "#4b9a55"),
    "wine": ("#882255", "#b34a80"),
    "moss": ("#858200", "#a8a534"),
    "brown": ("#8c564b", "#b57a6e"),
    "indigo": ("#332288", "#8071de"),
    "mist": ("#b6c0ca", "#58646f"),
    "slate": ("#626e7b", "#98a4b0"),
    "heat-0": ("#fff7e6", "#e9dfca"),
    "heat-1": ("#fdd49e", "#f2c486"),
    "heat-2": ("#e69f00", "#d99100"),
    "heat-3": ("#a6500a", "#9c480a"),
    "heat-4": ("#4a1c02", "#4a1c02"),
}
"""Every colour of a page: on a light ground, on a dark one."""


def style() -> str:
    """The colours as CSS: the reader's scheme decides, and paper is light."""
    light, dark = (
        "".join(
            f"--{name}:{shades[scheme]};--on-{name}:{_ink_on(shades[scheme])};"
            for name, shades in SHADES.items()
        )
        for scheme in (0, 1)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not(.printed){{{dark}}}}}"
    )


def ink_on(colour: str) -> str:
    """The colour of words on a bar of this colour, by day and by night."""
    return colour.replace("var(--", "var(--on-")


def _ink_on(shade: str) -> str:
    """Black or white, whichever is read better (relative luminance, WCAG 2)."""
    red, green, blue = (int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#ffffff" if luminance < 0.18 else "#101418"


def _named(name: str) -> str:
    if name not in SHADES:
        raise KeyError(name)
    return f"var(--{name})"


INK = _named("ink")
QUIET = _named("faint")
"""What something else is compared with."""
GRID = _named("line")
PAPER = _named("paper")
LIMIT = _named("limit")
"""A bound that should not be passed: memory capacity, a latency limit."""

OPERATIONS: dict[Operation, str] = {
    Operation.ATTENTION: _named("blue"),
    Operation.EXPERT: _named("orange"),
    Operation.DISPATCH: _named("sky"),
    Operation.COMBINE: _named("green"),
    Operation.SHARED_EXPERT: _named("yellow"),
    Operation.DENSE: _named("pink"),
    Operation.GATE: _named("vermilion"),
    Operation.ALL_GATHER: _named("cyan"),
    Operation.REDUCE_SCATTER: _named("teal"),
    Operation.ALL_REDUCE: _named("forest"),
    Operation.EMBED: _named("wine"),
    Operation.HEAD: _named("indigo"),
    Operation.DRAFT: _named("moss"),
    Operation.ENGINE: _named("brown"),
    Operation.WAIT: _named("mist"),
    Operation.OTHER: _named("slate"),
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
    MemoryPart.OTHER: OPERATIONS[Operation.OTHER],
}
"""Parts of memory, in the colour of the operation that uses them most."""

SERIES = tuple(
    map(_named, ("blue", "orange", "green", "pink", "vermilion", "sky", "indigo", "slate", "wine"))
)
"""Lines and parts that are not operations, in the order in which they appear."""

WITHIN_NODE = _named("sky")
ACROSS_NODES = _named("blue")

HEAT: list[tuple[float, str]] = [(stop / 4, _named(f"heat-{stop}")) for stop in range(5)]
"""Little to much: one hue from light to dark on either ground, so that words about it hold and it reads in grey."""


def series(number: int) -> str:
    """Colour of the n-th line; beyond the last they begin anew."""
    return SERIES[number % len(SERIES)]
