"""The server as a process: it listens, and ends in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from wingspan.runtime.llm import LLM
from wingspan.server.app import Access, build
from wingspan.server.metrics import OWN, VLLM, Metrics
from wingspan.server.served_model import ServedModel
from wingspan.server.step_loop import StepLoop


def serve(
    llm: LLM,
    name: str,
    listener: socket.socket,
    access: Access,
    *,
    most_waiting: int,
    vllm_metrics: bool = False,
) -> None:
    """Answer calls until SIGTERM or SIGINT; then take no more, and answer those under way.

    Args:
        llm: whose ranks compute.
        name: of the model in calls.
        listener: a bound socket.
        access: who may call.
        most_waiting: answers that may wait for a place.
        vllm_metrics: metrics under vLLM's names too.

    Raises:
        WingspanError: the ranks ended.
    """
    metrics = Metrics(name, (OWN, VLLM) if vllm_metrics else (OWN,))
    engine = StepLoop(llm, most_waiting, metrics)
    metrics.watch(engine)
    config = llm.config.get_text_config()
    serving = ServedModel(
        engine,
        name,
        llm.tokenizer,
        getattr(config, "max_position_embeddings", None),
        config.vocab_size,
        int(time.time()),
    )
    server = _Server(uvicorn.Config(build(serving, metrics, access), log_level="warning", access_log=False))
    engine.when_failed = server.stop
    asyncio.run(server.serve([listener]))
    if engine.failed is not None:
        raise engine.failed


class _Server(uvicorn.Server):
    """Ends with exit code 0 where a signal ended it in good order: uvicorn itself would raise the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn; a second signal waits for nobody."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """End as if a signal had come."""
        self.should_exit = True
