"""The work behind `wingspan serve`: fork the ranks, then listen."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from dataclasses import dataclass, fields

from wingspan.cli.runtime_import import need_runtime
from wingspan.errors import InputError
from wingspan.runtime.setup.setup import Asked, read_setup
from wingspan.signals import kept_signals

_KEY = "WINGSPAN_API_KEY"


@dataclass(frozen=True)
class Listen:
    """Where and to whom the server listens, as the command line says it."""

    host: str
    port: int
    anybody: bool
    name: str | None
    max_waiting: int
    origins: tuple[str, ...]
    most_body_bytes: int
    vllm_metrics: bool


def execute(
    asked: Asked,
    listen: Listen,
    *,
    sequences_per_rank: int,
    tokens_per_step: int,
    kv_tokens_per_rank: int | None,
    prefix_caching: bool,
) -> None:
    """Serve until a signal ends it; raises `WingspanError` where it fails."""
    begun = time.perf_counter()
    key = os.environ.get(_KEY) or None
    _check_access(listen, key)
    # What is wrong is said before the seconds that importing torch takes, a port in use too.
    setup = read_setup(asked, os.environ)
    ranks = setup.own_group(os.environ).size
    name = listen.name or setup.folder.resolve().name
    with _bound(listen) as listener, kept_signals() as came:
        need_server()
        from wingspan.runtime.llm import LLM
        from wingspan.server.app import Access
        from wingspan.server.listening import serve

        _say(f"loading {name} on {ranks} rank{'s' * (ranks > 1)}")
        with LLM(
            **{field.name: getattr(asked, field.name) for field in fields(Asked)},
            sequences_per_rank=sequences_per_rank,
            tokens_per_step=tokens_per_step,
            kv_tokens_per_rank=kv_tokens_per_rank,
            prefix_caching=prefix_caching,
        ) as llm:
            seconds = time.perf_counter() - begun
            _say(f"ready after {seconds:.1f} s: {_address(listener)} (OpenAI's API below /v1)")
            serve(
                llm,
                name,
                listener,
                Access(key, listen.origins, listen.most_body_bytes),
                most_waiting=listen.max_waiting,
                vllm_metrics=listen.vllm_metrics,
                came=came,
            )
    _say("ended; every call that was under way has been answered")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check_access(listen: Listen, key: str | None) -> None:
    try:
        loopback = ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        loopback = listen.host == "localhost"
    if not (loopback or key or listen.anybody):
        raise InputError(
            f"--host {listen.host}: others could call without a key; set {_KEY} in the environment, or say --anybody"
        )
    if key and listen.anybody:
        raise InputError(f"--anybody: {_KEY} is set, so calls need that key; leave one out")


def _bound(listen: Listen) -> socket.socket:
    """The socket on which to listen."""
    try:
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        return socket.create_server((listen.host, listen.port), family=family, backlog=2048)
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            f"--host {listen.host} --port {listen.port}: cannot listen there ({why}); use another --port"
        ) from None


def need_server() -> None:
    """Raise `InputError` where what a server needs is not installed; else see `need_runtime`."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[serve]'") from None
    need_runtime()


def _say(line: str) -> None:
    print(f"wingspan: {line}", file=sys.stderr, flush=True)
