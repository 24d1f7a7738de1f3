"""`make gpu` where no GPU is: what it would run, that it refuses to pretend, and that no part runs without end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks import gpu, gpu_parts
from benchmarks.gpu_layer import decode_layer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]


def test_the_parts_are_there_and_end_within_ten_minutes() -> None:
    said = CliRunner().invoke(gpu.app, ["--dry-run"])
    assert said.exit_code == 0
    assert all(part.name in said.stdout for part in gpu.PARTS)
    assert all(callable(getattr(gpu_parts, part.name)) for part in gpu.PARTS)
    assert sum(part.limit_seconds for part in gpu.PARTS) <= 600


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().splitlines() == ["no GPU here that torch sees: nothing was run"]


def test_a_part_that_runs_too_long_is_ended_and_leaves_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "import json, pathlib, time",
        f"pathlib.Path({str(tmp_path / 'slow.found.json')!r}).write_text(json.dumps({{'so far': 1}}))",
        "print('began', flush=True); time.sleep(60)",
    ]
    slow = tmp_path / "slow.py"
    slow.write_text("\n".join(lines))
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} {slow}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(fake))
    begun = time.monotonic()
    gpu.run_part(gpu.Part("slow", "nothing", 2), tmp_path)
    assert time.monotonic() - begun < 20
    left = json.loads((tmp_path / "slow.json").read_text())
    assert (left["ended"], left["found"], left["said_last"]) == ("out of time", {"so far": 1}, ["began"])


def test_the_layer_that_is_timed_computes() -> None:
    out_TD = decode_layer(torch.device("cpu"))()
    assert torch.isfinite(out_TD).all()
    assert out_TD.any()


@pytest.mark.parametrize(("card", "preset"), [("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100-sxm")])
def test_a_card_is_predicted_by_its_own_preset(card: str, preset: str) -> None:
    found = gpu_parts.card_preset(card)
    assert found is not None
    assert found.name == preset or preset in found.name
    assert gpu_parts.card_preset("some other card") is None


def test_memory_is_predicted_as_a_run_counts_it() -> None:
    """What a GPU would be asked for, on the processor; activations, buffers and the rest are measured otherwise."""
    parts = gpu_parts.memory_of(ROOT / "models" / "tiny", "cpu")["parts"]
    for part in ("attention", "dense", "routers and norms", "embedding and head", "experts", "kv cache"):
        assert parts[part]["predicted_bytes"] == parts[part]["counted_bytes"] > 0, part
