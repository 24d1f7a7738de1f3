"""The work behind `wingspan serve`: fork the ranks, or meet those that a launcher started, then listen."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wingspan.cli.launched import given, patience
from wingspan.cli.runtime_import import need_runtime
from wingspan.errors import InputError
from wingspan.runtime.setup.setup import Asked, Setup, read_setup
from wingspan.signals import kept_signals

if TYPE_CHECKING:
    from wingspan.runtime.launch.group import Group
    from wingspan.runtime.launch.met_ranks import Met

_KEY = "WINGSPAN_API_KEY"

_MAY_DIFFER = {"source", "checkpoint", "placement", "ranks", "ranks_per_node"}
"""What ranks that a launcher started may be given each its own: it is compared by what it leads to."""


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
    traces_endpoint: str | None


def execute(
    asked: Asked,
    listen: Listen,
    *,
    sequences_per_rank: int,
    tokens_per_step: int,
    kv_tokens_per_rank: int | None,
    prefix_caching: bool,
) -> None:
    """Serve until a signal ends it; raises `WingspanError` where it fails. Under a launcher rank 0 listens."""
    begun = time.perf_counter()
    key = os.environ.get(_KEY) or None
    _check_access(listen, key)
    _check_traces(listen.traces_endpoint)
    # What is wrong is said before the seconds that importing torch takes, a port in use too.
    setup = read_setup(asked, os.environ)
    group = setup.serving_group(os.environ)
    listens = group.rank in (None, 0)
    # A launched rank is ended for certain instead, also where it is stuck in a call.
    keeping: AbstractContextManager[list[int]] = kept_signals() if group.launch is None else nullcontext([])
    with _bound(listen) if listens else nullcontext() as listener, keeping as came:
        need_server()
        from wingspan.runtime.llm import LLM
        from wingspan.server.app import Access
        from wingspan.server.listening import serve

        name = listen.name or setup.folder.resolve().name
        if listens:
            _say(f"loading {name} on {group.size} rank{'s' * (group.size > 1)}")
        limits: dict[str, Any] = {
            "sequences_per_rank": sequences_per_rank,
            "tokens_per_step": tokens_per_step,
            "kv_tokens_per_rank": kv_tokens_per_rank,
            "prefix_caching": prefix_caching,
        }

        def work(met: Met | None = None) -> None:
            values = {field.name: getattr(asked, field.name) for field in fields(Asked)}
            # Where a launcher started this rank and it is not rank 0, this is all that it does.
            with LLM(**values, **limits, met=met) as llm:
                if listener is None:
                    return
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
                    traces_endpoint=listen.traces_endpoint,
                )
                _say("ended; every call that was under way has been answered")

        if group.launch is None or group.size == 1:
            work()
        else:
            _among_launched(group, setup, {**given(asked, _MAY_DIFFER), **_text_of(limits)}, work)


def _among_launched(group: Group, setup: Setup, options: dict[str, str], work: Callable[[Met], None]) -> None:
    """Meet the ranks that a launcher started, and let each do its work."""
    from wingspan.runtime import api as runtime
    from wingspan.runtime.launch.met_ranks import Met

    device = runtime.select_device(setup.device)
    met = group.meet(os.environ, device, patience(None))
    placement = runtime.engine_setup(setup, met, device).placement
    alike = {
        **options,
        "the placement": sha256(placement.slots_LRS.tobytes()).hexdigest()[:16],
        **runtime.fingerprint(setup.folder),
    }
    met.run(lambda transport: work(Met(met, transport)), device, alike)


def _text_of(limits: dict[str, Any]) -> dict[str, str]:
    return {f"--{name.replace('_', '-')}": str(value) for name, value in limits.items()}


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


def _check_traces(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"--otlp-traces-endpoint {endpoint}: is no address of a collector; use one such as "
            "http://localhost:4318/v1/traces"
        )
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--otlp-traces-endpoint needs {error.name}; pip install 'wingspan[traces]'"
        ) from None


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
