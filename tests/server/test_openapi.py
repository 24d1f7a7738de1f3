"""What /openapi.json says is what the server does: calls are made up from it, fitting and not, and answers held to it.

What makes them up (schemathesis) goes through the edges of every field, and then draws; the same calls in each run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.cli.command import REPOSITORY
from tests.server.running import Server, server

KEY = "of-this-test"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
DRAWN = 4
"""Calls of each route, beside those at the edges of its fields."""
MODELS_OWN = "positive_data_acceptance"
"""A call may fit the description and not the model: an id beyond its vocabulary, a schema that no answer can follow."""


@pytest.fixture(scope="module")
def keyed() -> Iterator[Server]:
    options = ("--ranks", "2", "--experts-per-rank", "4", "--dtype", "float32")
    with server(*options, environment={"WINGSPAN_API_KEY": KEY}) as running:
        yield running


def test_every_answer_is_as_declared(keyed: Server) -> None:
    options = {
        "--phases": "coverage,fuzzing",
        "--max-examples": str(DRAWN),
        "--seed": "1",
        "--exclude-checks": MODELS_OWN,
        "--header": f"Authorization: Bearer {KEY}",
        "--request-timeout": "30",
        "--output-sanitize": "false",
        "--warnings": "off",
    }
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{keyed.address}/openapi.json"]
        + [text for option in options.items() for text in option],
        cwd=REPOSITORY,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.server.openapi_hooks"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert keyed.process.poll() is None


def test_what_needs_a_key_says_so(keyed: Server) -> None:
    described = httpx.get(f"{keyed.address}/openapi.json", headers=AUTHORIZED).json()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, methods in described["paths"].items():
        (route,) = methods.values()
        needs_key = route.get("security", described["security"]) != []
        name = path.replace("{name}", "tiny")
        method = next(iter(methods)).upper()
        status = httpx.request(method, keyed.address + name, json={}).status_code
        assert (status == 401) == needs_key, path
        assert ("401" in route["responses"]) == needs_key, path
