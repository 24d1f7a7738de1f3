"""What a testbed looks like: nodes, links, rates; and the names by which its parts are found in the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wingspan.errors import InputError
from wingspan.runtime.ranks.nodes import Node, Nodes

PREFIX = "wingspan-"
SWITCH = "switch"
"""Namespace that holds the switch, and the name of the bridge in it."""

INTERFACE = "eth0"
"""A node's only link."""

NETWORK = "10.77.0.0/24"
"""The nodes' addresses. Testbeds share no network, so all may use the same ones."""

MTU_BYTES = 9000
"""Jumbo frames, as data centres use: headers stay under 1 % of the bytes."""

FRAME_BYTES = MTU_BYTES + 14

_NAME = re.compile(r"[a-z0-9_]{1,32}")
_NAMESPACE = re.compile(rf"{PREFIX}([a-z0-9_]+)-({SWITCH}|node\d+)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g)?bit", re.IGNORECASE)
_FACTOR = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_NODES_AT_MOST = 250  # the last byte of an address


class Layout(BaseModel):
    """A testbed. Rates are bits per second, each way; one kernel string holds the JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    nodes: int = Field(ge=1, le=_NODES_AT_MOST)
    ranks_per_node: int = Field(ge=1)
    rate_bits: int = Field(ge=8000)
    uplink_bits: int | None = None
    nodes_per_group: int | None = None

    @property
    def switch(self) -> str:
        """The switch's namespace."""
        return f"{PREFIX}{self.name}-{SWITCH}"

    def node(self, index: int) -> str:
        """A node's namespace."""
        return f"{PREFIX}{self.name}-node{index}"

    @property
    def groups(self) -> int:
        """Groups of nodes behind one uplink; 0 where every node hangs on the one switch."""
        return self.nodes // self.nodes_per_group if self.nodes_per_group else 0

    def bridge_of(self, node: int) -> str:
        """The bridge that a node's cable ends at."""
        return f"leaf{node // self.nodes_per_group}" if self.nodes_per_group else SWITCH

    @property
    def places(self) -> Nodes:
        """Where ranks go."""
        members = tuple(Node(self.node(i), address(i), INTERFACE) for i in range(self.nodes))
        return Nodes(members, self.ranks_per_node)


@dataclass(frozen=True)
class Part:
    """One namespace that belongs to a testbed."""

    namespace: str
    testbed: str
    role: str


def make_layout(
    name: str,
    nodes: int,
    ranks_per_node: int,
    rate: str,
    group_uplink: str | None = None,
    nodes_per_group: int | None = None,
) -> Layout:
    """A layout from the command line's words; raises `InputError` where they do not fit together."""
    if not _NAME.fullmatch(name):
        raise InputError(f"`name` {name}: use up to 32 lower-case letters, digits and _")
    if (group_uplink is None) != (nodes_per_group is None):
        raise InputError("`group_uplink` and `nodes_per_group` go together: give both, or neither")
    if nodes_per_group is not None and (nodes_per_group < 1 or nodes % nodes_per_group):
        raise InputError(
            f"`nodes_per_group` {nodes_per_group} does not divide {nodes} nodes into whole groups"
        )
    try:
        return Layout(
            name=name,
            nodes=nodes,
            ranks_per_node=ranks_per_node,
            rate_bits=parse_rate("link_rate", rate),
            uplink_bits=parse_rate("group_uplink", group_uplink) if group_uplink else None,
            nodes_per_group=nodes_per_group,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']}: {first['msg'].lower()}") from None


def parse_rate(field: str, text: str) -> int:
    """Bits per second of a rate as `tc` writes it: 400mbit, 1.5gbit."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"`{field}` {text}: expected a rate such as 400mbit or 10gbit")
    return round(float(match[1]) * _FACTOR[(match[2] or "").lower()])


def show_rate(bits: int) -> str:
    """A rate as a person writes it."""
    for unit, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if bits >= factor:
            return f"{bits / factor:g}{unit}"
    return f"{bits}bit"


def address(node: int) -> str:
    """A node's address in `NETWORK`."""
    return f"10.77.0.{node + 1}"


def part_of(namespace: str) -> Part | None:
    """The testbed and role that a namespace's name tells; None for a foreign one."""
    match = _NAMESPACE.fullmatch(namespace)
    return Part(namespace, match[1], match[2]) if match else None
