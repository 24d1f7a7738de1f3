"""The two kernel tools that a testbed is made with, `ip` and `tc`: looked for, called, their errors told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from wingspan.errors import InputError, RunError

_BATCH_LINE = re.compile(r"Command failed -:(\d+)")


def check_possible() -> None:
    """Raise `InputError` where this machine or this user cannot have a testbed, with the mend."""
    if sys.platform != "linux":
        raise InputError("a testbed needs Linux network namespaces; use a Linux machine or virtual machine")
    if os.geteuid() != 0:
        raise InputError("a testbed needs root to make network namespaces; run it with sudo")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise InputError(f"a testbed needs `{tool}`; apt-get install -y iproute2")


def ip(*arguments: str) -> str:
    """Run `ip` and return what it prints; raises `RunError` with its own words."""
    return _call("ip", arguments)


def ip_json(*arguments: str) -> Any:
    """Run `ip -j` and return what it describes."""
    return json.loads(_call("ip", ("-j", *arguments)) or "[]")


def ip_batch(namespace: str, lines: Sequence[str]) -> None:
    """Run many `ip` commands in one namespace by one process."""
    _call("ip", ("-n", namespace, "-batch", "-"), lines)


def tc_batch(namespace: str, lines: Sequence[str]) -> None:
    """Run many `tc` commands in one namespace by one process."""
    _call("tc", ("-n", namespace, "-batch", "-"), lines)


def _call(tool: str, arguments: Sequence[str], lines: Sequence[str] = ()) -> str:
    done = subprocess.run(
        [tool, *arguments], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " / ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        failed = _BATCH_LINE.search(said)
        at = f" ({lines[int(failed[1]) - 1]})" if failed else ""
        raise RunError(
            f"`{' '.join([tool, *arguments])}`{at} failed: {said or f'exit code {done.returncode}'}"
        )
    return done.stdout
