"""Exchanges on the communication stream: in order, one at a time, beside compute, and with the same results."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
import torch

from tests.runtime.forked import on_ranks
from wingspan.errors import RunError
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.flat import FlatDispatcher
from wingspan.runtime.dispatch.slots import SlotMap
from wingspan.runtime.dispatch.streamed import CommunicationStream, StreamedDispatcher
from wingspan.runtime.transport.transport import Transport

CPU = torch.device("cpu")


def test_jobs_run_one_after_another_in_the_order_given():
    stream, events = CommunicationStream(torch.device("cpu")), []

    def job(number: int) -> int:
        events.append(("begin", number))
        time.sleep(0.002 * (3 - number))
        events.append(("end", number))
        return number

    done = [stream.submit(lambda n=number: job(n)) for number in range(3)]
    results = [d.result(10) for d in done]
    assert [r.value for r in results] == [0, 1, 2]
    assert events == [(what, number) for number in range(3) for what in ("begin", "end")]
    assert all(a.ended <= b.began for a, b in pairwise(results))


def test_the_caller_goes_on_meanwhile():
    stream, go = CommunicationStream(torch.device("cpu")), threading.Event()
    done = stream.submit(lambda: go.wait(10))
    assert not done.done()
    go.set()
    assert done.result(10).value is True


def test_after_a_failure_no_later_job_runs():
    stream, ran = CommunicationStream(torch.device("cpu")), []

    def fail() -> None:
        raise RunError("rank 3 ended")

    first, second = stream.submit(fail), stream.submit(lambda: ran.append(1))
    for done in (first, second, stream.submit(lambda: ran.append(2))):
        with pytest.raises(RunError, match="rank 3 ended"):
            done.result(10)
    assert not ran


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_jobs_have_the_callers_gradient_mode(mode):
    stream = CommunicationStream(torch.device("cpu"))
    with mode():
        here = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        there = stream.submit(lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled())).result(10)
    assert there.value == here


def test_equals_the_dispatcher_itself_with_two_lanes_under_way(tmp_path):
    """Uneven and zero tokens, chunks, and a second micro-batch whose exchanges wait behind the first one's."""

    def work(transport: Transport) -> bool:
        world = transport.world
        slots = SlotMap(linear(1, 6, world.size, 2), 0, world, CPU)
        plain = FlatDispatcher(transport, slots, [2] * world.size, Buffers())
        streamed = StreamedDispatcher(
            FlatDispatcher(transport, slots, [2] * world.size, Buffers()),
            CommunicationStream(torch.device("cpu")),
        )
        generator = torch.Generator().manual_seed(world.rank)
        equal = True
        for step in range(10):
            lanes = []
            for _ in range(2):
                tokens = (step * (world.rank + 1)) % 7
                experts_TK = torch.rand(tokens, 6, generator=generator).topk(2).indices
                lanes.append(
                    (
                        torch.randn(tokens, 4, generator=generator),
                        experts_TK,
                        torch.rand(tokens, 2, generator=generator),
                    )
                )
            routes = [streamed.route(*inputs, chunks=2, lane=n) for n, inputs in enumerate(lanes)]
            pending = [[streamed.send(route) for route in lane] for lane in routes]
            going = [
                [streamed.send_back(2 * got.rows_ND, got.handle) for got in (each.wait() for each in lane)]
                for lane in pending
            ]
            results = [torch.cat([g.wait().clone() for g in lane]) for lane in going]
            for inputs, result in zip(lanes, results, strict=True):
                parts = []
                for route in plain.route(*inputs, chunks=2, lane=0):
                    got = plain.send(route).wait()
                    parts.append(plain.send_back(2 * got.rows_ND, got.handle).wait().clone())
                equal &= torch.equal(torch.cat(parts), result)
        return equal

    def without_gradient(transport: Transport) -> bool:
        with torch.inference_mode():
            return work(transport)

    assert on_ranks(without_gradient, 3, tmp_path) == [True] * 3
