"""Exchanges beside compute: the communication stream of a rank, and any dispatcher with its exchanges on it.

What an exchange needs besides its transfer (agreeing on counts, forwarding inside a node, sorting rows) happens there
too, so none of it holds the compute up. On a GPU the thread asks all that of a stream of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from wingspan.runtime.dispatch.dispatcher import Capabilities, Dispatcher, HandleT, Pending, Received, RouteT
from wingspan.runtime.ranks.clock import Moment, clock_of
from wingspan.runtime.ranks.side_stream import Mark, side_stream

Value = TypeVar("Value")


@dataclass(frozen=True)
class Done(Generic[Value]):
    """What a job made, and when it ran."""

    value: Value
    began: Moment
    ended: Moment
    mark: Mark
    """Where in its stream it ended."""


class CommunicationStream:
    """Runs jobs one after another, in the order given, on a thread of its own.

    Every rank gives the same jobs in the same order, so collective calls in them meet. After a job that failed none
    runs any more: its peers have missed an exchange, and all later ones would wait for nothing.

    Args:
        device: where the tensors of its jobs are.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = clock_of(device)
        self._side = side_stream(device)
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], Value], uses: object = None) -> Future[Done[Value]]:
        """Run this after all earlier ones, with the caller's inference mode.

        Args:
            job: it may use what the caller's stream has made so far.
            uses: its tensors that the caller's stream made.
        """
        if self._thread is None:
            # A daemon, because a rank that fails must not wait at its exit for an exchange that never ends.
            self._thread = threading.Thread(target=self._run, name="communication", daemon=True)
            self._thread.start()
        inference = torch.is_inference_mode_enabled()
        done: Future[Done[Value]] = Future()
        mark = self._side.mark()
        self._jobs.put((done, lambda: self._timed(job, uses, mark, inference)))
        return done

    def result(self, done: Future[Done[Value]]) -> Done[Value]:
        """What a job made, for the caller's stream to use."""
        made = done.result()
        self._side.use(made.value, made.mark)
        return made

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

    def _timed(self, job: Callable[[], Value], uses: object, mark: Mark, inference: bool) -> Done[Value]:
        # Gradients in this order: leaving inference mode off would turn them on again.
        with self._side.beside(mark), torch.inference_mode(inference), torch.no_grad():
            self._side.use(uses)
            began = self._clock.now()
            value = job()
            return Done(value, began, self._clock.now(), self._side.mark())


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

    def begin(self, dispatched: Done[Any]) -> Moment:
        """When that dispatch of it began: the first chunk's with the exchange of counts."""
        return dispatched.began if self.chunk else self.routes.result().began


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
            lambda: self._dispatcher.route(x_TD, experts_TK, weights_TK, chunks, lane),
            uses=(x_TD, experts_TK, weights_TK),
        )
        return [StreamedRoute(routes, chunk) for chunk in range(chunks)]

    def send(self, route: StreamedRoute[RouteT]) -> Pending[Received[HandleT]]:
        """See `Dispatcher.send`."""
        done = self._stream.submit(lambda: self._dispatcher.send(route.agreed).wait())
        return _Streamed(self._stream, done, route.begin)

    def send_back(self, y_ND: torch.Tensor, handle: HandleT) -> Pending[torch.Tensor]:
        """See `Dispatcher.send_back`."""
        done = self._stream.submit(lambda: self._dispatcher.send_back(y_ND, handle).wait(), uses=y_ND)
        return _Streamed(self._stream, done, lambda done: done.began)


class _Streamed(Pending[Value]):
    """What a job of the stream makes."""

    def __init__(
        self,
        stream: CommunicationStream,
        done: Future[Done[Value]],
        begin: Callable[[Done[Value]], Moment],
    ) -> None:
        super().__init__((), lambda: stream.result(done).value)
        self._stream = stream
        self._done = done
        self._begin = begin

    def wait(self) -> Value:
        """See `Pending`."""
        done = self._stream.result(self._done)
        self.under_way = (self._begin(done), done.ended)
        return done.value
