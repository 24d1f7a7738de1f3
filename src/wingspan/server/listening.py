"""The server as a process: it listens, and ends in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from wingspan.errors import RunError
from wingspan.runtime.llm import LLM
from wingspan.schedule.batching import UNLIMITED
from wingspan.server.app import Access, build
from wingspan.server.live import Live, ServedGroup
from wingspan.server.metrics import OWN, VLLM, Metrics
from wingspan.server.served_model import ServedModel
from wingspan.server.step_loop import StepLoop
from wingspan.server.step_records import StepRecorder
from wingspan.server.traces import Traces, otlp
from wingspan.server.watching import Watchers


def serve(
    llm: LLM,
    name: str,
    listener: socket.socket,
    access: Access,
    *,
    most_waiting: int,
    vllm_metrics: bool = False,
    recorder: StepRecorder | None = None,
    beside: Callable[[], Awaitable[None]] | None = None,
    came: Sequence[int] = (),
    traces_endpoint: str | None = None,
) -> None:
    """Answer calls until SIGTERM or SIGINT; then take no more, and answer those under way.

    Args:
        llm: whose ranks compute.
        name: of the model in calls.
        listener: a bound socket.
        access: who may call.
        most_waiting: answers that may wait for a place.
        vllm_metrics: metrics under vLLM's names too.
        recorder: keeps every step.
        beside: is done meanwhile, and ends the server with it.
        came: signals before it listened for them itself, as `kept_signals` has them; any ends it as it begins.
        traces_endpoint: URL of a collector that is told of every answer; None: nobody is.

    Raises:
        WingspanError: the ranks ended.
    """
    metrics = Metrics(name, (OWN, VLLM) if vllm_metrics else (OWN,))
    live = Live(ServedGroup(name, llm.ranks, llm.ranks_per_node, llm.slots))
    traces = None if traces_endpoint is None else Traces(otlp(traces_endpoint), name)
    asked_for = [watcher for watcher in (recorder, traces) if watcher is not None]
    engine = StepLoop(llm, most_waiting, Watchers(metrics, live, *asked_for))
    metrics.watch(engine)
    live.watch(engine)
    if recorder is not None:
        recorder.watch(engine)
    config = llm.config.get_text_config()
    serving = ServedModel(
        engine,
        name,
        llm.tokenizer,
        *_longest(llm),
        config.vocab_size,
        int(time.time()),
    )
    app = build(serving, metrics, live, access)
    send_at_once(listener)
    server = _Server(uvicorn.Config(app, log_level="warning", access_log=False), live.drain, came)
    engine.when_failed = server.stop
    asyncio.run(_serve_beside(server, listener, beside))
    if traces is not None:
        traces.close()
    if engine.failed is not None:
        raise engine.failed


def send_at_once(listener: socket.socket) -> None:
    """Let its connections send small pieces as they are written, without waiting for an acknowledgement of the last.

    asyncio does so for sockets that name TCP as their protocol; those of `socket.create_server` name none, and an
    answer's first token would come up to 40 ms after its headers. Connections inherit it.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _longest(llm: LLM) -> tuple[int | None, str]:
    """Most tokens of a prompt and its answer, and what that is of."""
    context = getattr(llm.config.get_text_config(), "max_position_embeddings", None)
    room = llm.limits.kv_tokens_per_home
    if room < (UNLIMITED.kv_tokens_per_home if context is None else context):
        return room, "a rank's room for KV cache, of"
    return context, "the model's context of"


async def _serve_beside(
    server: _Server, listener: socket.socket, beside: Callable[[], Awaitable[None]] | None
) -> None:
    if beside is None:
        await server.serve([listener])
        return
    serving = asyncio.create_task(server.serve([listener]))
    working = asyncio.ensure_future(beside())
    # A signal, or ranks that ended, end the server first: nobody waits for what is done beside it then.
    await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await serving
    if not working.done():
        working.cancel()
        raise RunError("the server was ended before the work beside it")
    await working


class _Server(uvicorn.Server):
    """Ends with exit code 0 where a signal ended it in good order: uvicorn itself would raise the signal again.

    Args:
        config: see uvicorn.
        when_ending: called in the event loop once no more calls are taken.
        came: see `serve`.
    """

    def __init__(
        self, config: uvicorn.Config, when_ending: Callable[[], None], came: Sequence[int] = ()
    ) -> None:
        super().__init__(config)
        self._when_ending = when_ending
        self._came = came

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._when_ending()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn; a second signal waits for nobody."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        self.should_exit |= bool(self._came)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """End as if a signal had come."""
        self.should_exit = True
