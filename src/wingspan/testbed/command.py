"""Run a command whose ranks live in a testbed's nodes, and count what their links carry meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.testbed import counters
from wingspan.testbed.counters import LinkCount, Reconciled
from wingspan.testbed.layout import Layout

REPORT_VARIABLE = "WINGSPAN_REPORT"
"""Names the file into which the command writes its report."""

_GRACE_SECONDS = 10.0
"""A command that is to end with this one has so long to end its ranks."""

_QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Nodes have no name service; torch would warn of that once per rank."""


@dataclass(frozen=True)
class Outcome:
    """How the command ended, what it took, and each node's traffic."""

    exit_code: int
    seconds: float
    links: list[LinkCount]
    reconciled: list[Reconciled] | None
    """The counts beside the runtime's own figures; None where the command wrote no report."""


def run(layout: Layout, command: Sequence[str], environment: Mapping[str, str]) -> Outcome:
    """Run a command once; Wingspan's own launcher puts its ranks into the nodes.

    Args:
        layout: a testbed that is up.
        command: `wingspan ...`, or a program that starts ranks by `wingspan.runtime.launch.start.run_ranks`.
        environment: what the command inherits.

    Raises:
        InputError: no such command.
    """
    with tempfile.TemporaryDirectory(prefix="wingspan-testbed-") as folder:
        report = Path(environment.get(REPORT_VARIABLE, f"{folder}/report.json"))
        told = {
            **_QUIET,
            **environment,
            **layout.places.to_environment(),
            REPORT_VARIABLE: str(report),
        }
        before, start = counters.read(layout), time.monotonic()
        exit_code = _call(_resolved(command), told)
        seconds = time.monotonic() - start
        links = counters.difference(before, counters.read(layout))
        reports = _read_reports(report)
    return Outcome(exit_code, seconds, links, counters.reconcile(links, reports) if reports else None)


def _resolved(command: Sequence[str]) -> list[str]:
    """`wingspan` is the one that runs now, whichever comes first on the search path."""
    if command[0] == "wingspan":
        return [sys.executable, "-m", "wingspan.cli.main", *command[1:]]
    return list(command)


def _call(command: Sequence[str], environment: Mapping[str, str]) -> int:
    sys.stdout.flush()
    try:
        process = subprocess.Popen(command, env=dict(environment))
    except OSError as error:
        raise InputError(f"cannot start {command[0]}: {error.strerror}") from None
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The terminal told the command too; its ranks end with it.
        process.wait()
        raise
    except BaseException:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    # A shell's way to tell of a signal.
    return 128 - code if code < 0 else code


def _read_reports(file: Path) -> list[dict[str, Any]]:
    """The step reports of a finished run: prefill, and decode where it had one."""
    if not file.is_file() or not os.path.getsize(file):
        return []
    result = json.loads(file.read_text())
    prefill, last = result["prefill_report"], result["report"]
    return [prefill] if last == prefill else [prefill, last]
