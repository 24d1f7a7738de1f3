"""Exchanges beside compute: the communication stream of a rank, and any dispatcher with its exchanges on it.

The processor's counterpart of a CUDA stream. What an exchange needs besides its transfer (agreeing on counts,
forwarding inside a node, sorting rows) happens there too, so none of it holds the compute up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from wingspan.runtime.dispatch.dispatcher import Capabilities, Dispatcher, HandleT, Pending, Received, RouteT

Value = TypeVar("Value")


@dataclass(frozen=True)
class Done(Generic[Value]):
    """What a job made, and when it ran, on the clock of `time.monotonic`."""

    value: Value
    began_seconds: float
    ended_seconds: float


class CommunicationStream:
    """Runs jobs one after another, in the order given, on a thread of its own.

    Every rank gives the same jobs in the same order, so collective calls in them meet. After a job that failed none
    runs any more: its peers have missed an exchange, and all later ones would wait for nothing.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], Value]) -> Future[Done[Value]]:
        """Run this after all earlier ones, with the caller's gradient mode."""
        if self._thread is None:
            # A daemon, because a rank that fails must not wait at its exit for an exchange that never ends.
            self._thread = threading.Thread(target=self._run, name="communication", daemon=True)
            self._thread.start()
        inference = torch.is_inference_mode_enabled()
        done: Future[Done[Value]] = Future()
        self._jobs.put((done, lambda: _timed(job, inference)))
        return done

    def _run(self) -> None:
        while True:
            done, job = self._jobs.get()
            try:
                if self._failed is not None:
                    raise self._failed
                done.set_result(job())
            except BaseException as error:
                self._failed = error
                done.set_exception(error)


def _timed(job: Callable[[], Value], inference: bool) -> Done[Value]:
    began = time.monotonic()
    # In this order: leaving inference mode off would turn gradients on again.
    with torch.inference_mode(inference), torch.no_grad():
        value = job()
    return Done(value, began, time.monotonic())


@dataclass(frozen=True)
class StreamedRoute(Generic[RouteT]):
    """A route that may not be agreed on yet."""

    routes: Future[Done[list[RouteT]]]
    """The routes of all chunks, which are agreed on at once."""
    chunk: int

    @property
    def agreed(self) -> RouteT:
        """The dispatcher's own route; waits for it."""
        return self.routes.result().value[self.chunk]

    def begin_seconds(self, dispatched: Done[Any]) -> float:
        """When that dispatch of it began: the first chunk's with the exchange of counts."""
        return dispatched.began_seconds if self.chunk else self.routes.result().began_seconds


class StreamedDispatcher(Generic[RouteT, HandleT]):
    """A dispatcher all of whose exchanges, the counts' too, run on a communication stream. Inference only.

    Its calls return at once. An exchange begins when those before it have ended, as in a `schedule.Schedule`.
    """

    def __init__(self, dispatcher: Dispatcher[RouteT, HandleT], stream: CommunicationStream) -> None:
        self.capabilities: Capabilities = dispatcher.capabilities
        self._dispatcher = dispatcher
        self._stream = stream

    def route(
        self, x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor, chunks: int, lane: int
    ) -> list[StreamedRoute[RouteT]]:
        """See `Dispatcher.route`."""
        routes = self._stream.submit(
            lambda: self._dispatcher.route(x_TD, experts_TK, weights_TK, chunks, lane)
        )
        return [StreamedRoute(routes, chunk) for chunk in range(chunks)]

    def send(self, route: StreamedRoute[RouteT]) -> Pending[Received[HandleT]]:
        """See `Dispatcher.send`."""
        done = self._stream.submit(lambda: self._dispatcher.send(route.agreed).wait())
        return _Streamed(done, route.begin_seconds)

    def send_back(self, y_ND: torch.Tensor, handle: HandleT) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        done = self._stream.submit(lambda: self._dispatcher.send_back(y_ND, handle).wait())
        return _Streamed(done, lambda done: done.began_seconds)


class _Streamed(Pending[Value]):
    """What a job of the stream makes."""

    def __init__(self, done: Future[Done[Value]], begin_seconds: Callable[[Done[Value]], float]) -> None:
        super().__init__((), lambda: done.result().value)
        self._done = done
        self._begin_seconds = begin_seconds

    def wait(self) -> Value:
        """See `Pending`."""
        done = self._done.result()
        self.under_way_seconds = (self._begin_seconds(done), done.ended_seconds)
        return done.value
