"""Experts move while a server answers, and nobody's text shows it."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import numpy as np
import psutil
import pytest

import wingspan.models  # noqa: F401 - registers the architecture of models/tiny
from tests.cli.command import REPOSITORY
from tests.runtime.plain import plain_model, plain_tokens
from tests.server.running import Server, server
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement

TINY = REPOSITORY / "models" / "tiny"
PROMPTS = ("def main():", "import ", "class Node:")
NEW_TOKENS = 30
MOST_SECONDS = 60


@pytest.fixture
def on_rank_0(tmp_path: Path) -> str:
    """A placement's file: rank 0 holds all experts of the seven MoE layers, rank 1 none."""
    slots_LRS = np.full((7, 2, 8), EMPTY)
    slots_LRS[:, 0] = np.arange(8)
    stored = StoredPlacement(Placement(slots_LRS, 8), tuple(range(3, 10)), 10)
    (tmp_path / "p.json").write_text(json.dumps(stored.to_dict()))
    return str(tmp_path / "p.json")


def test_requests_stream_on_while_experts_move(on_rank_0: str) -> None:
    model, tokenizer = plain_model(TINY), Tokenizer(TINY)
    length = Length(NEW_TOKENS, ignore_eos=True)
    expected = [
        tokenizer.decode(plain_tokens(model, Request(n, tokenizer.encode(prompt), length=length)))
        for n, prompt in enumerate(PROMPTS)
    ]
    options = ("--placement", on_rank_0, "--dtype", "float32", "--rebalance", "every 8")
    with server(*options) as running, ThreadPoolExecutor(len(PROMPTS)) as callers:
        deadline = time.monotonic() + MOST_SECONDS

        def call(prompt: str) -> list[str]:
            """Texts, one after the other, until experts have moved."""
            texts = [streamed(running, prompt)]
            while not moved(running) and time.monotonic() < deadline:
                texts.append(streamed(running, prompt))
            return [*texts, streamed(running, prompt)]

        for texts, wanted in zip(callers.map(call, PROMPTS), expected, strict=True):
            assert set(texts) == {wanted}
        assert moved(running) > 0
        ranks_and_planner = psutil.Process(running.process.pid).children(recursive=True)
        assert running.end() == 0
        assert len(ranks_and_planner) == 3
        assert psutil.wait_procs(ranks_and_planner, 10)[1] == []
    assert re.search(r"steps \d+-\d+: moved \d+ experts", "".join(running.said))


def streamed(running: Server, prompt: str) -> str:
    body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{running.address}/v1/completions", json=body, timeout=MOST_SECONDS) as answer:
        assert answer.status_code == 200
        data = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
    pieces = [json.loads(text)["choices"][0]["text"] for text in data]
    assert len(pieces) > 1
    return "".join(pieces)


def moved(running: Server) -> float:
    text = httpx.get(f"{running.address}/metrics", timeout=MOST_SECONDS).text
    found = re.search(r"wingspan:experts_moved_total\{[^}]*\} (\S+)", text)
    assert found is not None, text
    return float(found[1])
