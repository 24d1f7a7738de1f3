"""`wingspan compare --serving`: a server is loaded for real, and every figure stands beside its simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, Command

LOAD = (
    "compare", "models/tiny", "--serving", "--ranks", "2", "--transport", "shm", "--rate", "30,10",
    "--num-requests", "5", "--prompt-tokens", "12", "--output-tokens", "8", "--length-spread", "0.2",
    "--max-sequences", "2", "--step-tokens", "10", "--rounds", "1", "--seed", "3",
)  # fmt: skip


def test_every_load_is_simulated_with_the_requests_that_were_sent(tmp_path: Path):
    page = tmp_path / "page.html"
    done = subprocess.run(
        [sys.executable, "-m", "wingspan.cli.main", *LOAD, "--json", "--html", str(page)],
        cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=150,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [load["requests_per_second"] for load in found["loads"]] == [10, 30]
    for load in found["loads"]:
        (one,) = load["rounds"]
        predicted, measured = one["predicted"], one["measured"]
        assert predicted["requests"] == measured["requests"] == 5
        for met in (predicted, measured):
            assert 0 < met["tpot_seconds"]["p50"] <= met["tpot_seconds"]["p90"]
            assert 0 < met["ttft_seconds"]["p50"] < met["end_to_end_seconds"]["p50"]
        # However busy the machine is: the policy is the server's own, so with the server's own step times the
        # simulation gives every request the same steps.
        replayed = one["replayed"]
        assert replayed["duration_seconds"] == pytest.approx(measured["duration_seconds"], rel=0.25)
        assert replayed["tpot_seconds"]["p50"] == pytest.approx(measured["tpot_seconds"]["p50"], rel=0.25)
        assert 0 <= one["others_share"] <= 1
    errors = [figure["error"] for load in found["compared"] for figure in load["figures"].values()]
    assert all(error is not None for error in errors)
    assert found["measured_steps"] > 25
    assert "predicted and measured" in page.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--serving", "--steps", "2"), "--steps 2"), (("--rounds", "2"), "--rounds 2"),
        (("--serving", "--rate", "0"), "--rate 0"), (("--serving", "--rate", "x"), "--rate x"),
        (("--serving", "--compute", "real"), "--compute real"),
        (("--serving", "--max-sequences", "9", "--step-tokens", "9"), "leaves none for prefill"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(
    wingspan: Command, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], named: str
):
    monkeypatch.chdir(REPOSITORY)
    done = wingspan("compare", "models/tiny", *options)
    assert done.code == 2
    assert named in done.err
    assert done.err.count("\n") == 1, done.err
