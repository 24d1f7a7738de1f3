"""The work behind `wingspan serve`: fork the ranks, then listen."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from wingspan.cli.run_setup import Setup
from wingspan.cli.runtime_import import need_runtime
from wingspan.errors import InputError
from wingspan.runtime.ranks.nodes import nodes_from_environment
from wingspan.runtime.ranks.world import launch_from_environment

_KEY = "WINGSPAN_API_KEY"


@dataclass(frozen=True)
class Listen:
    """Where and to whom the server listens, as the command line says it."""

    host: str
    port: int
    anybody: bool
    name: str
    max_waiting: int
    origins: tuple[str, ...]
    most_body_bytes: int
    vllm_metrics: bool


def execute(
    setup: Setup, listen: Listen, *, transport: str, sequences_per_rank: int, tokens_per_step: int
) -> None:
    """Serve until a signal ends it; raises `WingspanError` where it fails."""
    begun = time.perf_counter()
    key = os.environ.get(_KEY) or None
    _check_access(listen, key)
    _check_setup(setup, os.environ)
    listener = _bound(listen)
    _need_server()
    from wingspan.runtime import api as runtime
    from wingspan.runtime.llm import LLM
    from wingspan.server.app import Access
    from wingspan.server.listening import serve

    model = runtime.describe(setup.folder, runtime.dtype_named(setup.dtype))
    ranks = setup.ranks or 1
    placement = setup.build_placement(len(model.shape.paths), model.shape.num_experts, ranks)
    for note in setup.notes:
        _say(note)
    experts = f"{placement.slots_per_rank} expert{'s' * (placement.slots_per_rank > 1)}"
    _say(f"loading {listen.name} on {ranks} ranks, {experts} of each layer on each")
    with LLM(
        setup.folder,
        ranks,
        placement=placement,
        dtype=setup.dtype,
        transport=transport,
        dispatcher=setup.dispatcher or "auto",
        schedule=setup.schedule,
        row_precision=setup.row_precision,
        sequences_per_rank=sequences_per_rank,
        tokens_per_step=tokens_per_step,
    ) as llm:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _say(
            f"ready after {time.perf_counter() - begun:.1f} s: http://{shown}:{port} (OpenAI's API below /v1)"
        )
        serve(
            llm,
            listen.name,
            listener,
            Access(key, listen.origins, listen.most_body_bytes),
            most_waiting=listen.max_waiting,
            vllm_metrics=listen.vllm_metrics,
        )
    _say("ended; every call that was under way has been answered")


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


def _check_setup(setup: Setup, environment: Mapping[str, str]) -> None:
    if launch_from_environment(environment) is not None or nodes_from_environment(environment) is not None:
        raise InputError(
            "serve starts its ranks itself; call it without torchrun, mpirun, srun or testbed run"
        )
    if not setup.shared_beside_dispatch:
        raise InputError(
            "shared_beside_dispatch false: a server's shared experts compute while rows travel; set it to true in the "
            "deployment"
        )
    if setup.schedule == "auto" or setup.plugin is not None:
        what = "--schedule auto" if setup.schedule == "auto" else f"--dispatcher {setup.plugin}"
        raise InputError(f"{what}: cannot be served; name a schedule and a dispatcher of Wingspan's own")


def _bound(listen: Listen) -> socket.socket:
    """The socket, taken before ranks are loaded: a port in use is said at once."""
    try:
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        return socket.create_server((listen.host, listen.port), family=family, backlog=2048)
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            f"--host {listen.host} --port {listen.port}: cannot listen there ({why}); use another --port"
        ) from None


def _need_server() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[serve]'") from None
    need_runtime()


def _say(line: str) -> None:
    print(f"wingspan: {line}", file=sys.stderr, flush=True)
