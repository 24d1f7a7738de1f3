"""Nodes that are network namespaces of this machine: how a testbed tells a command where its ranks go.

One process imports once and forks every rank; a rank then enters its node's namespace. From there on its
sockets see only that node's network interface.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from wingspan.errors import InputError, RunError

NODES_VARIABLE = "WINGSPAN_NODES"
RANKS_VARIABLE = "WINGSPAN_RANKS_PER_NODE"

_NAMESPACES = "/run/netns"
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Node:
    """A node: its namespace's name, its address there, and the interface that leads to the other nodes."""

    namespace: str
    address: str
    interface: str


@dataclass(frozen=True)
class Nodes:
    """Where ranks go: rank r lives on node r // ranks_per_node."""

    members: tuple[Node, ...]
    ranks_per_node: int

    @property
    def size(self) -> int:
        """Ranks on all nodes."""
        return len(self.members) * self.ranks_per_node

    def node_of(self, rank: int) -> Node:
        """The node that a rank lives on."""
        return self.members[rank // self.ranks_per_node]

    def to_environment(self) -> dict[str, str]:
        """The variables that `nodes_from_environment` reads back."""
        members = ",".join(f"{n.namespace}/{n.address}/{n.interface}" for n in self.members)
        return {NODES_VARIABLE: members, RANKS_VARIABLE: str(self.ranks_per_node)}


def nodes_from_environment(environment: Mapping[str, str]) -> Nodes | None:
    """The nodes that a testbed wrote there, or None.

    Raises:
        InputError: the variables are damaged.
    """
    text = environment.get(NODES_VARIABLE)
    if not text:
        return None
    try:
        members = tuple(Node(*member.split("/")) for member in text.split(","))
        return Nodes(members, int(environment[RANKS_VARIABLE]))
    except (TypeError, ValueError, KeyError):
        raise InputError(
            f"environment: {NODES_VARIABLE}={text!r} with {RANKS_VARIABLE}={environment.get(RANKS_VARIABLE)!r} "
            "is not what `wingspan testbed run` writes"
        ) from None


def enter(node: Node) -> None:
    """Move this thread's network to the node's namespace; only sockets opened from now on are there.

    Raises:
        RunError: the namespace is gone, or this process may not enter it.
    """
    try:
        namespace = os.open(f"{_NAMESPACES}/{node.namespace}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RunError(f"node {node.namespace}: {error.strerror}; is the testbed still up?") from None
    try:
        _set_namespace(namespace, node.namespace)
    finally:
        os.close(namespace)


def listen_on(node: Node) -> socket.socket:
    """A listening socket at a free port of the node's address; this thread's own network stays as it was."""
    with _visit(node):
        return socket.create_server((node.address, 0))


@contextmanager
def _visit(node: Node) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(node)
        yield
    finally:
        _set_namespace(home, "home")
        os.close(home)


def _set_namespace(namespace: int, name: str) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise RunError(
            f"node {name}: cannot enter its network namespace ({os.strerror(ctypes.get_errno())}); run as root"
        )
