"""A rank's first act is to take its share of the cores, and with it a thread pool of its own."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.runtime.forked import on_ranks
from wingspan.runtime.launch import start
from wingspan.runtime.ranks import device
from wingspan.runtime.ranks.device import take_share
from wingspan.runtime.ranks.world import World
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


@pytest.mark.parametrize(("given", "cores", "threads"), [(None, 12, 3), (None, 2, 1), ("5", 12, 5)])
def test_cores_are_shared_unless_somebody_set_another_number(given, cores, threads, monkeypatch):
    """The pool is replaced in either case: `set_num_threads` does so in a forked process."""
    set_to: list[int] = []
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    take_share(World(0, 4, 4, 0), CPU)
    assert set_to == [threads]


def test_a_forked_rank_takes_its_share_before_anything_else(monkeypatch, tmp_path):
    order: list[str] = []
    entered = start._connect

    def connect(*arguments):
        order.append("connect")
        return entered(*arguments)

    monkeypatch.setattr(start, "take_share", lambda *_: order.append("take_share"))
    monkeypatch.setattr(start, "_connect", connect)
    assert on_ranks(lambda _: order, 1, tmp_path) == [["take_share", "connect"]]


def test_threads_that_compute_at_once_after_the_fork_all_find_a_pool(monkeypatch, tmp_path):
    """Of ranks that do not replace it first, about every second one fails here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    # A number that was set is what threads of the child set again at their first product.
    torch.set_num_threads(2)
    numbers = torch.ones(1 << 17)

    def work(_: Transport) -> list[str]:
        errors: list[str] = []
        together = threading.Barrier(8)

        def compute() -> None:
            together.wait()
            try:
                numbers.add(1)
            except RuntimeError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=compute) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    try:
        for _ in range(20):
            assert on_ranks(work, 1, tmp_path) == [[]]
    finally:
        torch.set_num_threads(before)
