"""Run the `wingspan` command inside the test process; its ranks are still forked processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from wingspan.cli import main as cli

REPOSITORY = Path(__file__).parents[2]
TINY = str(REPOSITORY / "models" / "tiny")


@dataclass(frozen=True)
class Finished:
    """How the command ended."""

    code: int
    out: str
    err: str


class Command:
    """Calls the command's entry point with arguments, as a shell would, and captures all ranks' output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str) -> Finished:
        self._monkeypatch.setattr(sys, "argv", ["wingspan", *arguments])
        self._capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self._capfd.readouterr()
        return Finished(code, out, err)


def in_a_shell(
    arguments: Sequence[str], seconds: float = 120, **environment: str
) -> subprocess.CompletedProcess:
    """A command in a process of its own, ended with all its children where it takes too long."""
    with subprocess.Popen(
        [str(a) for a in arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            raise AssertionError(f"not done after {seconds} s: {arguments}\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
