"""What this process may use of its machine: batch systems and containers often give it a part.

Linux's control groups are read in both versions; elsewhere, and where nothing is limited, the answer is the machine's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NO_LIMIT_BYTES = 1 << 62
"""Version 1 writes the largest number of pages where there is no limit."""


@dataclass(frozen=True)
class _Group:
    """A folder of the control group file system: of this process's group, or of one that holds it."""

    folder: Path
    version: int

    def number(self, name: str) -> int | None:
        """The number in a file; None where there is none, or no limit ("max")."""
        with suppress(OSError, ValueError):
            return int((self.folder / name).read_text())
        return None

    def field(self, name: str, key: str) -> int:
        """The number beside a key in a file of "key number" lines; 0 where it is missing."""
        with suppress(OSError, ValueError):
            lines = (line.split() for line in (self.folder / name).read_text().splitlines())
            return next((int(line[1]) for line in lines if line and line[0] == key), 0)
        return 0


def usable_cores(proc: Path = _PROC) -> int:
    """How many processors' worth of time this process can have: by its affinity, and its groups' quotas rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (quota for group in _groups("cpu", proc) if (quota := _quota_cores(group)) is not None)
    return max(1, min([cores, *quotas]))


def usable_memory_bytes(proc: Path = _PROC) -> int:
    """The most that this process and its children may hold: the machine's, or its groups' limit."""
    return min([_physical_bytes(), *(limit for limit, _ in _memory_limits(proc))])


def free_memory_bytes(proc: Path = _PROC) -> int:
    """How much more they may hold now; what only caches files counts as free."""
    free = _physical_bytes()
    with suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([free, *(limit - used for limit, used in _memory_limits(proc))]))


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _quota_cores(group: _Group) -> int | None:
    """Whole processors that the group's quota is worth, rounded up; None without one."""
    quota, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
    if group.version == 2:
        with suppress(OSError, ValueError):
            quota, period = map(int, (group.folder / "cpu.max").read_text().split())
    return -(-quota // period) if quota is not None and period and quota > 0 else None


def _memory_limits(proc: Path) -> Iterator[tuple[int, int]]:
    """(limit, held without what caches files) of every group with a limit, in bytes."""
    for group in _groups("memory", proc):
        new = group.version == 2
        limit = group.number("memory.max" if new else "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT_BYTES:
            held = group.number("memory.current" if new else "memory.usage_in_bytes") or 0
            cached = group.field("memory.stat", "inactive_file" if new else "total_inactive_file")
            yield limit, max(0, held - cached)


def _groups(controller: str, proc: Path) -> Iterator[_Group]:
    """This process's group and all that hold it, as far as they are to be seen from here, in both versions."""
    with suppress(OSError):
        for version, root, mount in _mounts(controller, proc):
            inside = _path_of_process(controller if version == 1 else "", proc)
            if inside is None:
                continue
            # A container may see its own group as the root of the mount.
            below = inside.relative_to(root) if inside.is_relative_to(root) else Path()
            folders = [mount / below, *(mount / parent for parent in below.parents)]
            yield from (_Group(folder, version) for folder in folders)


def _mounts(controller: str, proc: Path) -> Iterator[tuple[int, Path, Path]]:
    """(version, group at its root, folder) of each mount where the controller's files may be.

    A line is "36 35 98:0 ROOT FOLDER options ... - TYPE SOURCE OPTIONS" (proc_pid_mountinfo(5)).
    """
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[:1] == ["cgroup2"]:
            yield 2, Path(fields[3]), Path(fields[4])
        elif kind[:1] == ["cgroup"] and controller in kind[-1].split(","):
            yield 1, Path(fields[3]), Path(fields[4])


def _path_of_process(controller: str, proc: Path) -> Path | None:
    """This process's group in a hierarchy: lines are "NUMBER:CONTROLLERS:PATH", version 2's without controllers."""
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(path)
    return None
