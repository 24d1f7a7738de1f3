"""Build, find and remove a testbed. All that is known about one lies in the kernel, so a crash loses nothing.

Every part lives in a namespace of the testbed's own, the switch too: removing the namespaces removes all, the
machine's own network is never touched, and two testbeds cannot see each other.

    node0: eth0 ---- port0 :switch: port1 ---- eth0 :node1      with groups: portN :leafG: upG ---- downG :switch
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from wingspan.errors import InputError, RunError, WingspanError
from wingspan.testbed.iproute import check_possible, ip, ip_batch, ip_json, tc_batch
from wingspan.testbed.layout import (
    FRAME_BYTES,
    INTERFACE,
    MTU_BYTES,
    NETWORK,
    SWITCH,
    Layout,
    Part,
    address,
    part_of,
)

_BURST_SECONDS = 50e-6
"""A link that idled may send this much at once: far less than a transfer, more than the kernel's timers slip."""

_QUEUE_BYTES = 64_000_000
"""Longest queue before a link. Deep enough that many senders to one node lose nothing: the networks of GPU
clusters are lossless too."""

_LONGEST_QUEUE_SECONDS = 2
"""TCP takes nothing for lost before: what is late here waits in a queue, and repeating it would lengthen that."""

_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class FoundTestbed:
    """A testbed as the kernel shows it; `layout` is None where its making or removing was cut short."""

    name: str
    layout: Layout | None
    namespaces: list[str]
    processes: list[int]


def up(layout: Layout) -> None:
    """Build a testbed.

    Raises:
        InputError: not possible here, or the name is taken.
        RunError: the kernel refused a step; nothing is left behind.
    """
    check_possible()
    if any(part.testbed == layout.name for part in _parts()):
        raise InputError(f"testbed {layout.name} is up already; take it down, or give another `name`")
    try:
        _build(layout)
    except (WingspanError, KeyboardInterrupt):
        down(layout.name)
        raise


def down(name: str) -> list[str]:
    """End the processes in a testbed and remove it, whatever state it is in; returns the namespaces removed."""
    check_possible()
    namespaces = [part.namespace for part in _parts() if part.testbed == name]
    _end_processes(namespaces)
    for namespace in namespaces:
        with suppress(RunError):  # another `down` was faster
            ip("netns", "delete", namespace)
    return namespaces


def find() -> list[FoundTestbed]:
    """All testbeds of this machine, by name."""
    check_possible()
    names: dict[str, list[str]] = {}
    for part in _parts():
        names.setdefault(part.testbed, []).append(part.namespace)
    return [
        FoundTestbed(name, _read_layout(name), namespaces, _processes(namespaces))
        for name, namespaces in sorted(names.items())
    ]


def get(name: str) -> Layout:
    """A testbed that is up; raises `InputError` where there is none of that name."""
    found = {testbed.name: testbed for testbed in find()}
    if name not in found:
        others = f" (up: {', '.join(found)})" if found else ""
        raise InputError(f"testbed {name} is not up{others}; build it with `wingspan testbed up`")
    layout = found[name].layout
    if layout is None:
        raise InputError(
            f"testbed {name} is incomplete; take it down with `wingspan testbed down`, then up again"
        )
    return layout


def _build(layout: Layout) -> None:
    nodes = [layout.node(i) for i in range(layout.nodes)]
    for namespace in (layout.switch, *nodes):
        ip("netns", "add", namespace)
    ip_batch(layout.switch, _switch_lines(layout))
    tc_batch(layout.switch, _switch_shapes(layout))
    for i, namespace in enumerate(nodes):
        ip_batch(
            namespace,
            [
                "link set dev lo up",
                f"link set dev {INTERFACE} addrgenmode none",
                f"link set dev {INTERFACE} up",
                f"address add {address(i)}/24 dev {INTERFACE}",
                f"route change {NETWORK} dev {INTERFACE} congctl cubic rto_min {_LONGEST_QUEUE_SECONDS}s",
            ],
        )
        tc_batch(namespace, [_shape(INTERFACE, layout.rate_bits)])
        # A link's sender does not start slowly again after each pause, as TCP does; one layer's exchange is
        # always a pause after the other's.
        ip("netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.tcp_slow_start_after_idle=0")
    for namespace in (layout.switch, *nodes):
        ip("netns", "exec", namespace, "sh", "-c", _keep_order())
    # Last, because a testbed is complete when it says what it is.
    kept = layout.model_dump_json(exclude_none=True, exclude={"name"})
    ip("-n", layout.switch, "link", "set", "dev", SWITCH, "alias", kept)


def _switch_lines(layout: Layout) -> list[str]:
    """The bridges, and a cable from each node to its bridge."""
    bridges = [SWITCH, *(f"leaf{g}" for g in range(layout.groups))]
    lines = [f"link add name {bridge} mtu {MTU_BYTES} type bridge mcast_snooping 0" for bridge in bridges]
    lines += [f"link set dev {bridge} up" for bridge in bridges]
    for g in range(layout.groups):
        lines.append(f"link add name up{g} mtu {MTU_BYTES} type veth peer name down{g} mtu {MTU_BYTES}")
        lines += [f"link set dev up{g} master leaf{g}", f"link set dev down{g} master {SWITCH}"]
        lines += [f"link set dev up{g} up", f"link set dev down{g} up"]
    for i in range(layout.nodes):
        lines.append(
            f"link add name port{i} mtu {MTU_BYTES} type veth "
            f"peer name {INTERFACE} mtu {MTU_BYTES} netns {layout.node(i)}"
        )
        lines += [f"link set dev port{i} master {layout.bridge_of(i)}", f"link set dev port{i} up"]
    return lines


def _switch_shapes(layout: Layout) -> list[str]:
    """The switch's ends of the cables send at the link's rate too, so that a link has that rate both ways."""
    lines = [_shape(f"port{i}", layout.rate_bits) for i in range(layout.nodes)]
    if layout.uplink_bits is not None:
        lines += [
            _shape(f"{end}{g}", layout.uplink_bits) for g in range(layout.groups) for end in ("up", "down")
        ]
    return lines


def _shape(device: str, rate_bits: int) -> str:
    burst_bytes = max(2 * FRAME_BYTES, round(rate_bits / 8 * _BURST_SECONDS))
    return f"qdisc add dev {device} root tbf rate {rate_bits}bit burst {burst_bytes}b limit {_QUEUE_BYTES}b"


def _keep_order() -> str:
    """A shell command: each flow's packets are received by one processor, else they overtake each other.

    TCP drops what comes too late, or sends again what only seems lost, and now and then an exchange lasts seconds.
    """
    digits = f"{(1 << (os.cpu_count() or 1)) - 1:x}"
    digits = digits.zfill(-(-len(digits) // 8) * 8)
    mask = ",".join(digits[i : i + 8] for i in range(0, len(digits), 8))
    return f"for file in /sys/class/net/*/queues/rx-*/rps_cpus; do echo {mask} > $file; done"


def _parts() -> list[Part]:
    names = [entry["name"] for entry in ip_json("netns", "list")]
    return [part for name in sorted(names) if (part := part_of(name))]


def _read_layout(name: str) -> Layout | None:
    switch = next((p for p in _parts() if p.testbed == name and p.role == SWITCH), None)
    if switch is None:
        return None
    links = ip_json("-n", switch.namespace, "link", "show")
    alias = next((link.get("ifalias") for link in links if link["ifname"] == SWITCH), None)
    if alias is None:
        return None
    try:
        return Layout(name=name, **json.loads(alias))
    except (ValidationError, ValueError):
        return None


def _processes(namespaces: list[str]) -> list[int]:
    pids = {int(pid) for namespace in namespaces for pid in ip("netns", "pids", namespace).split()}
    return sorted(pids - {os.getpid()})


def _end_processes(namespaces: list[str]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        pids = _processes(namespaces)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + _GRACE_SECONDS
        while pids and _processes(namespaces) and time.monotonic() < deadline:
            time.sleep(0.05)
