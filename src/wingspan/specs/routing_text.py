"""How tokens choose experts, in a word: `uniform`, `log-normal:0.6`, `power-law:1.2`, or a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wingspan.errors import InputError
from wingspan.routing.load_file import read_load
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.specs.model import ModelSpec
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
    "log-normal:SIGMA+GROUPS": "the same, and GROUPS that of a factor that 32 neighbouring experts have in common",
    "FILE.parquet": "a routing trace: which experts each token chose",
    "FILE": "loads, layers x experts: what import wrote, or a matrix (JSON, .npy, CSV, Parquet)",
}
"""What may be said, and what it means."""

LOADS_ALONE = (
    "only loads are known: which experts tokens pick together, and where these tokens live, is taken as chance; what a "
    "deduplicated or hierarchical dispatcher saves may differ"
)
"""What a load leaves undecided; a trace says it."""


def parse_routing(text: str) -> Routing:
    """The routing of a text.

    Args:
        text: `uniform`, `log-normal:SIGMA`, `log-normal:SIGMA+GROUPS`, `power-law:EXPONENT`, a routing trace (.parquet)
            or loads per (layer, expert) in a file that `read_load` reads.

    Raises:
        InputError: something else, or a number or file that is wrong.
    """
    name, _, number = text.partition(":")
    if text == "uniform":
        return UniformRouting()
    if name == "log-normal":
        each, plus, groups = number.partition("+")
        shared = {"group_sigma": _number(text, groups)} if plus else {}
        return parse(LogNormalRouting, {"sigma": _number(text, each), **shared}, f"`routing` {text}")
    if name == "power-law":
        return parse(PowerLawRouting, {"exponent": _number(text, number)}, f"`routing` {text}")
    path = Path(text)
    if not path.exists():
        raise InputError(
            f"`routing` {text}: neither uniform, power-law:EXPONENT, log-normal:SIGMA nor an existing file"
        )
    if path.suffix == ".parquet" and _is_trace(path):
        found = {"source": text, "trace": str(path.resolve()), "loads": _trace_loads(path)}
        return parse(RecordedRouting, found, f"`routing` {text}")
    try:
        return routing_of_load(read_load(path))
    except InputError as error:
        raise InputError(f"`routing` {error}") from None


def routing_of_load(load: RecordedLoad) -> RecordedRouting:
    """Loads alone as a routing, with what they leave undecided."""
    found = {
        "source": load.source,
        "loads": load.load_LE.tolist(),
        "moe_layers": load.moe_layers,
        "remarks": (LOADS_ALONE, *load.remarks),
    }
    return parse(RecordedRouting, found, load.source)


def fitted(routing: Routing, model: ModelSpec) -> Routing:
    """The routing with loads of this model's MoE layers; one row stands for all of them, and that is said.

    A trace is returned as it is: its layers may be fewer, and then repeat.

    Raises:
        InputError: the loads are of other layers or experts.
    """
    if not isinstance(routing, RecordedRouting) or routing.trace is not None or not routing.remarks:
        return routing
    loads = np.array(routing.loads)
    remarks = routing.remarks
    if len(loads) == 1 and routing.moe_layers is None and len(model.moe_layers) > 1:
        loads = np.repeat(loads, len(model.moe_layers), axis=0)
        remarks = (*remarks, "one row of loads stands for every MoE layer")
    load = RecordedLoad(loads[None], routing.moe_layers, routing.source, remarks)
    try:
        own = load.of_model(model.moe_layers, model.layers, model.experts.count, model.name)
    except InputError as error:
        raise InputError(f"{routing.source}: {error}") from None
    loads_LE = tuple(tuple(row) for row in own.load_LE.tolist())
    changes = {"loads": loads_LE, "moe_layers": own.moe_layers, "remarks": own.remarks}
    return routing.model_copy(update=changes)


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


def _is_trace(path: Path) -> bool:
    from wingspan.routing.trace_file import is_trace

    return is_trace(path)


def _trace_loads(path: Path) -> list[list[int]]:
    """Tokens per (MoE layer, expert) of a routing trace."""
    from wingspan.routing.statistics import expert_load
    from wingspan.routing.trace_file import TraceFile

    loads: list[list[int]] = np.sum([expert_load(p) for p in TraceFile.open(path).chunks()], axis=0).tolist()
    return loads
