"""What this machine offers a deployment, and what each missing thing costs. Works where torch is missing too."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wingspan.host import free_memory_bytes, usable_cores, usable_memory_bytes


@dataclass(frozen=True)
class Finding:
    """One thing looked for; `found` is empty where it is missing, and then `costs` says what that means."""

    name: str
    found: str
    costs: str


def examine() -> list[Finding]:
    """Look at everything."""
    return [
        _python(),
        _cores(),
        _memory(),
        *_torch(),
        _transformers(),
        *_mpi(),
        *_network(),
        _shared_memory(),
        _testbed(),
    ]


def _python() -> Finding:
    return Finding("Python", sys.version.split()[0], "")


def _cores() -> Finding:
    return Finding("CPU cores", f"{usable_cores()} (more ranks than that take turns)", "")


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):
        return Finding("memory", "", "memory checks before a run are left out")
    total, free = usable_memory_bytes(), free_memory_bytes()
    return Finding("memory", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of them free", "")


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torch.distributed as dist
    except ImportError:
        yield Finding("torch", "", "wingspan run, record and calibrate; pip install 'wingspan[runtime]'")
        return
    yield Finding("torch", f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}", "")
    onednn = "packs expert weights" if torch.backends.mkldnn.is_available() else ""
    yield Finding("oneDNN", onednn, "expert weights are laid out anew at every product")
    yield from _cuda()
    yield Finding("gloo", "yes" if dist.is_gloo_available() else "", "no run over several CPU ranks")
    yield Finding("NCCL", "yes" if dist.is_nccl_available() else "", "no transfers between GPUs")


def _cuda() -> Iterator[Finding]:
    import torch

    count = torch.cuda.device_count()
    found = [torch.cuda.get_device_properties(device) for device in range(count)]
    names = [f"{p.name} (sm_{p.major}{p.minor}, {p.total_memory / 1e9:.0f} GB)" for p in found]
    yield Finding("CUDA devices", ", ".join(names), "a run on cuda; everything runs on the CPU")
    if not count:
        return
    yield Finding("CUDA of torch", torch.version.cuda or "", "this build of torch computes on no GPU")
    yield Finding("NVIDIA driver", _driver(), "its version is not to be read here")
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else ""
    yield Finding("NCCL version", nccl, "no transfers between GPUs")
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    if pairs:
        reach = sum(torch.cuda.can_device_access_peer(a, b) for a, b in pairs)
        yield Finding(
            "peer access",
            f"{reach} of {len(pairs)} pairs of GPUs" if reach else "",
            "GPUs reach each other's memory through the host's only",
        )


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found.group(1) if found else ""


def _transformers() -> Finding:
    found = _version("transformers")
    return Finding("transformers", found, "models cannot be loaded; pip install 'wingspan[runtime]'")


def _mpi() -> Iterator[Finding]:
    launcher = shutil.which("mpirun") or ""
    yield Finding("mpirun", launcher, "no start by MPI; apt-get install openmpi-bin, or use torchrun")
    yield Finding("mpi4py", _version("mpi4py"), "no MPI transport; pip install 'wingspan[mpi]'")


def _network() -> Iterator[Finding]:
    names = [name for _, name in socket.if_nameindex()]
    others = [name for name in names if name != "lo"]
    yield Finding("loopback", "lo" if "lo" in names else "", "ranks of this machine cannot reach each other")
    yield Finding("network interfaces", ", ".join(others), "no run over several machines")


def _shared_memory() -> Finding:
    """What ranks would get, by asking for it: limits (ulimit) and containers may forbid it."""
    size_bytes = usable_memory_bytes() // 2
    costs = "ranks of one machine exchange rows over loopback"
    if not hasattr(os, "memfd_create"):
        return Finding("shared memory", "", costs)
    try:
        with os.fdopen(os.memfd_create("wingspan"), "w+b") as memory:
            os.ftruncate(memory.fileno(), size_bytes)
            mmap.mmap(memory.fileno(), 0).close()
    except OSError as error:
        return Finding("shared memory", "", f"{costs}; {error.strerror}")
    return Finding("shared memory", f"{size_bytes / 1e9:.1f} GB for the ranks of this machine", "")


def _testbed() -> Finding:
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() != 0:
        return Finding("network namespaces", "", "no testbed; needs Linux and root")
    if missing:
        return Finding(
            "network namespaces", "", f"no testbed; {' and '.join(missing)} missing: apt-get install iproute2"
        )
    return Finding("network namespaces", "root, ip, tc", "")


def _version(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return ""
    return importlib.metadata.version(package)
