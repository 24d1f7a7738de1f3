"""Ranks that this machine cannot hold are refused before the first is forked."""

from __future__ import annotations

import resource
import sys

import psutil
import pytest

from tests.cli.command import TINY, in_a_shell
from wingspan.errors import InputError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.ranks import capacity
from wingspan.runtime.ranks.capacity import check_room


def test_what_people_start_has_room():
    check_room(64)
    check_room(8, model_bytes=10_000_000)


@pytest.mark.parametrize("ranks", [100_000, 10**9, 10**30])
def test_too_many_ranks_are_refused(ranks):
    with pytest.raises(InputError, match=f"{ranks:,} ranks need"):
        Group.find({}, ranks, None)
    assert psutil.Process().children() == []


def test_models_that_do_not_fit_beside_each_other_are_refused():
    with pytest.raises(InputError, match=r"4 ranks need 40,000,000.03 GB of memory .* start fewer"):
        check_room(4, model_bytes=10**16)


def test_open_files_are_counted():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        check_room(40)
        with pytest.raises(InputError, match=r"41 ranks need 102 open files each, .* start at most 40"):
            check_room(41)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_processes_are_counted(monkeypatch, tmp_path):
    (tmp_path / "pid_max").write_text("100\n")
    monkeypatch.setattr(capacity, "_KERNEL", tmp_path)
    check_room(20)
    with pytest.raises(InputError, match=r"21 ranks need 105 processes .* the kernel's pid_max allows 100"):
        check_room(21)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--ranks", "100000"], "100,000 ranks need"),
        (["--ranks", "16000"], "16,000 ranks need"),
        (["--ranks", "2", "--experts-per-rank", "1000000000"], "use at most 8"),
        (["--ranks", "8", "--max-new-tokens", "1000000000000"], "at most 2047 would fit"),
    ],
)
def test_run_refuses_in_one_line(options, text):
    done = in_a_shell([sys.executable, "-m", "wingspan.cli.main", "run", TINY, "--prompt", "a", *options])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert text in done.stderr
