"""What a process may use: by affinity and by control groups of both versions, in written and in real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wingspan.host import free_memory_bytes, usable_cores, usable_memory_bytes

PHYSICAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MB = 1 << 20


def proc_of(folder: Path, mounts: str, groups: str, available_bytes: int = PHYSICAL_BYTES) -> Path:
    """A /proc with these mounts and groups of the process."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/mountinfo").write_text(mounts)
    (folder / "proc/self/cgroup").write_text(groups)
    (folder / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {available_bytes // 1024} kB\n")
    return folder / "proc"


def group_of(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def version_2(folder: Path, root: str = "/", path: str = "/job/step") -> Path:
    mounts = f"23 1 0:21 / /proc rw - proc proc rw\n30 23 0:26 {root} {folder}/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
    return proc_of(folder, mounts, f"0::{path}\n")


def version_1(folder: Path) -> Path:
    mounts = "".join(
        f"{n} 23 0:{n} / {folder}/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(("cpu,cpuacct", "memory"), start=30)
    )
    return proc_of(folder, mounts, "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n")


def test_nothing_limited_is_the_machine(tmp_path):
    proc = version_2(tmp_path)
    group_of(tmp_path / "cgroup/job/step", cpu__max="max 100000", memory__max="max")
    assert (usable_cores(proc), usable_memory_bytes(proc)) == (CORES, PHYSICAL_BYTES)


def test_no_control_groups_is_the_machine(tmp_path):
    assert (usable_cores(tmp_path), usable_memory_bytes(tmp_path)) == (CORES, PHYSICAL_BYTES)
    assert 0 < free_memory_bytes(tmp_path) <= PHYSICAL_BYTES


def test_version_2_takes_the_tightest_of_all_that_hold_the_process(tmp_path):
    proc = version_2(tmp_path)
    stat = "anon 5\ninactive_file 1048576\n"
    group_of(tmp_path / "cgroup/job/step", memory__max=300 * MB, memory__current=5 * MB, memory__stat="")
    group_of(
        tmp_path / "cgroup/job", memory__max=100 * MB, memory__current=41 * MB, memory__stat=stat,
        cpu__max="50000 100000",
    )  # fmt: skip
    assert usable_memory_bytes(proc) == 100 * MB
    assert free_memory_bytes(proc) == 60 * MB
    assert usable_cores(proc) == 1


def test_version_1(tmp_path):
    proc = version_1(tmp_path)
    group_of(tmp_path / "cpu,cpuacct/job", cpu__cfs_quota_us=50000, cpu__cfs_period_us=100000)
    group_of(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712)
    group_of(
        tmp_path / "memory/job", memory__limit_in_bytes=200 * MB, memory__usage_in_bytes=80 * MB,
        memory__stat="total_inactive_file 10485760",
    )  # fmt: skip
    assert usable_memory_bytes(proc) == 200 * MB
    assert free_memory_bytes(proc) == 130 * MB
    assert usable_cores(proc) == 1


def test_no_quota_in_version_1_is_a_negative_one(tmp_path):
    proc = version_1(tmp_path)
    group_of(tmp_path / "cpu,cpuacct/job", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert usable_cores(proc) == CORES


def test_a_container_whose_own_group_is_the_root_of_what_it_sees(tmp_path):
    """Without a group namespace the path is the host's, and the mount shows only what is below it."""
    proc = version_2(tmp_path, root="/docker/abc", path="/docker/abc")
    group_of(tmp_path / "cgroup", memory__max=100 * MB, cpu__max="20000 100000")
    assert (usable_memory_bytes(proc), usable_cores(proc)) == (100 * MB, 1)


def test_a_group_with_more_held_than_allowed_has_nothing_free(tmp_path):
    proc = version_2(tmp_path)
    group_of(tmp_path / "cgroup/job", memory__max=10 * MB, memory__current=11 * MB)
    assert free_memory_bytes(proc) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_affinity_counts():
    one = min(os.sched_getaffinity(0))
    said = ask("usable_cores()", before=f"import os; os.sched_setaffinity(0, [{one}])")
    assert said == "1"


@pytest.fixture
def limited() -> Iterator[tuple[str, int]]:
    """A shell command that enters a new control group of 256 MB, and that number."""
    version_1, version_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    old = (version_1 / "memory.limit_in_bytes").exists()
    folder = (version_1 if old else version_2) / f"wingspan-test-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if old else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(256 * MB))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"cannot make a control group here: {error.strerror}")
    try:
        yield f"echo $$ > {folder}/cgroup.procs", 256 * MB
    finally:
        folder.rmdir()


@pytest.mark.root
def test_a_real_control_group(limited):
    enter, limit_bytes = limited
    total, free = ask("usable_memory_bytes(), free_memory_bytes()", shell=enter).split()
    assert int(total) == limit_bytes
    assert 0 < int(free) < limit_bytes


def ask(expression: str, before: str = "", shell: str = "true") -> str:
    """What the expression is in a new process, started by a shell that first runs a command."""
    code = f"{before}\nfrom wingspan.host import *\nprint({expression})"
    command = ["sh", "-c", f'{shell} && exec "$0" "$@"', sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
