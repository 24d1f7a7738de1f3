"""How tokens choose experts, in a word: `uniform`, `log-normal:0.6`, `power-law:1.2`, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wingspan.errors import InputError
from wingspan.reading import json_value
from wingspan.specs.reading import parse
from wingspan.specs.workload import (
    LogNormalRouting,
    PowerLawRouting,
    RecordedRouting,
    Routing,
    UniformRouting,
)

ROUTING_TEXTS = {
    "uniform": "every expert as likely as any other",
    "power-law:EXPONENT": "the n-th most popular expert with a share of n^-EXPONENT",
    "log-normal:SIGMA": "shares drawn, with SIGMA the standard deviation of their logarithm",
    "FILE.parquet": "a routing trace: which experts each token chose",
    "FILE.json": "loads per (layer, expert)",
}
"""What may be said, and what it means."""


def parse_routing(text: str) -> Routing:
    """The routing of a text.

    Args:
        text: `uniform`, `log-normal:SIGMA`, `power-law:EXPONENT`, a routing trace (.parquet), or a JSON list of loads
            per (layer, expert).

    Raises:
        InputError: something else, or a number or file that is wrong.
    """
    name, _, number = text.partition(":")
    if text == "uniform":
        return UniformRouting()
    if name == "log-normal":
        return parse(LogNormalRouting, {"sigma": _number(text, number)}, f"`routing` {text}")
    if name == "power-law":
        return parse(PowerLawRouting, {"exponent": _number(text, number)}, f"`routing` {text}")
    path = Path(text)
    if not path.is_file():
        raise InputError(
            f"`routing` {text}: neither uniform, power-law:EXPONENT, log-normal:SIGMA nor an existing file"
        )
    found: dict[str, Any] = {"source": text}
    if path.suffix == ".parquet":
        found |= {"trace": str(path.resolve()), "loads": _trace_loads(path)}
    else:
        found |= {"loads": _json_loads(path)}
    return parse(RecordedRouting, found, f"`routing` {text}")


def read_routing(text: str) -> Routing:
    """As `parse_routing`, with the tokens of a trace at hand."""
    routing = parse_routing(text)
    if isinstance(routing, RecordedRouting) and routing.trace is not None:
        from wingspan.routing.trace_file import read_trace  # only now Parquet's library

        return routing.with_tokens(read_trace(Path(routing.trace)))
    return routing


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        name = text.partition(":")[0]
        raise InputError(f"`routing` {text}: {name} needs a number, as in {name}:0.8") from None


def _trace_loads(path: Path) -> list[list[int]]:
    """Tokens per (MoE layer, expert) of a routing trace."""
    from wingspan.routing.statistics import expert_load
    from wingspan.routing.trace_file import TraceFile

    loads: list[list[int]] = np.sum([expert_load(p) for p in TraceFile.open(path).chunks()], axis=0).tolist()
    return loads


def _json_loads(path: Path) -> Any:
    try:
        return json_value(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"`routing` {path}: not JSON ({error}); expected loads per (layer, expert)"
        ) from None
