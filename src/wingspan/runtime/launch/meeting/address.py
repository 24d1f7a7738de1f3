"""Where the ranks of a launch meet: rank 0's address and port, as the launcher says them or as they can be derived."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import Launch

_PORT = "29500"
"""torch.distributed's, where nothing else is said."""

_FIRST_OF_LIST = re.compile(r"\[([^\]\-,]+)[^\]]*\]")


@dataclass(frozen=True)
class MeetingPoint:
    """Rank 0's address and port.

    Attributes:
        address: a name or number, as every rank can look it up.
        port: rank 0 listens there; or torchrun's own store does.
        launch: tells launches apart that use one port; empty where a launcher gives nothing to tell by.
        agent_store: torchrun's store is there, not rank 0: it is asked where rank 0 is.
        only_here: no rank is on another host.
        remark: why ranks may not find each other there; empty where nothing is known.
    """

    address: str
    port: int
    launch: str = ""
    agent_store: bool = False
    only_here: bool = False
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    def with_remark(self, remark: str) -> MeetingPoint:
        """Put another remark before the point's own."""
        return replace(self, remark="; ".join(filter(None, (remark, self.remark))))


def meeting_point(environment: Mapping[str, str], launch: Launch) -> MeetingPoint:
    """Where the ranks of this launch meet.

    Args:
        environment: usually `os.environ`.
        launch: what was read from it.

    Raises:
        InputError: the port is none, or ranks on other hosts cannot know where rank 0 is.
    """
    address, remark = _address(environment, launch)
    return MeetingPoint(
        address,
        _port(environment),
        _launch_name(environment, launch),
        agent_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        only_here=("MASTER_ADDR" not in environment and not launch.on_several_hosts)
        or launch.local_size == launch.size,
        remark=remark,
    )


def first_host(host_list: str) -> str:
    """The first host of Slurm's notation: `gpu[03-05,9],login` is `gpu03`."""
    depth, end = 0, len(host_list)
    for place, letter in enumerate(host_list):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            end = place
            break
    return _FIRST_OF_LIST.sub(r"\1", host_list[:end])


def check_interfaces(environment: Mapping[str, str], device_type: str) -> None:
    """Raise `InputError` where a network interface that the transports are told to use is not on this host."""
    there = [name for _, name in socket.if_nameindex()]
    for name in environment.get("GLOO_SOCKET_IFNAME", "").split(","):
        if name and name not in there:
            raise InputError(_no_interface("GLOO_SOCKET_IFNAME", name, there))
    # NCCL's are beginnings of names, whole ones behind "=", and exceptions behind "^".
    wanted = environment.get("NCCL_SOCKET_IFNAME", "") if device_type == "cuda" else ""
    whole, names = wanted.startswith("="), wanted.lstrip("=").split(",")
    if wanted and not wanted.startswith("^"):
        fits = [t for t in there for name in names if t == name or (not whole and t.startswith(name))]
        if not fits:
            raise InputError(_no_interface("NCCL_SOCKET_IFNAME", wanted, there))


def _no_interface(variable: str, name: str, there: list[str]) -> str:
    return (
        f"environment: {variable}={name}: {socket.gethostname()} has no such network interface, but "
        f"{', '.join(there)}; name one of these, or unset {variable}"
    )


def _address(environment: Mapping[str, str], launch: Launch) -> tuple[str, str]:
    """Rank 0's address, and what may be wrong with it."""
    if given := environment.get("MASTER_ADDR"):
        return given, ""
    if not launch.on_several_hosts:
        known = launch.local_size == launch.size
        return "127.0.0.1", "" if known else "MASTER_ADDR is not set: ranks on other hosts do not find rank 0"
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if launch.launcher == "Slurm" and hosts:
        return first_host(hosts), "MASTER_ADDR is not set: taken from Slurm's list of nodes"
    mend = {
        "Open MPI": "mpirun -x MASTER_ADDR=HOST ...",
        "MPICH": "mpiexec -genv MASTER_ADDR HOST ...",
        "Slurm": "MASTER_ADDR=HOST srun ...",
    }.get(launch.launcher, "MASTER_ADDR=HOST on every rank")
    raise InputError(
        f"environment: ranks are on several hosts ({launch.local_size} of {launch.size} on this one), and MASTER_ADDR "
        f"does not say where rank 0 is; {mend}, with the host of rank 0"
    )


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("MASTER_PORT", _PORT)
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise InputError(f"environment: MASTER_PORT={text!r} is not a port; use a number from 1 to 65535")
    return int(text)


def _launch_name(environment: Mapping[str, str], launch: Launch) -> str:
    names = {
        "torchrun": ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
        "Open MPI": ("PMIX_NAMESPACE",),
        "Slurm": ("SLURM_JOB_ID", "SLURM_STEP_ID"),
    }.get(launch.launcher, ())
    return ".".join(environment[name] for name in names if name in environment)
