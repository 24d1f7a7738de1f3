"""Every screen of planning at 80 columns, of all presets: no line is wider, no digit is cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import TINY, Command
from wingspan.specs.cluster_files import cluster_presets
from wingspan.specs.models import model_presets

MODELS = model_presets()
SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
STEPS = [
    (model, cluster, SIZES[number % len(SIZES)])
    for number, (model, cluster) in enumerate(zip(MODELS * 2, cluster_presets(), strict=False))
]
PLANS = (
    ("seed", "b300", 64, "--price", "2"),
    ("deepseek-v3", "h100-sxm", 256, "--price", "98.3", "--tokens-per-gpu", "64"),
    ("mixtral-8x7b", "a100+pcie4", 16, "--phase", "prefill"),
    ("deepseek-v3", "h100-sxm", 8),
    ("gpt-oss-120b", "gb200-nvl72", 8, "--input", "2000", "--output", "500", "--tpot", "0.05"),
)
SWEEPS = (
    ("--ranks", "8..1024", "-b", "1,4096", "--price", "0.02"),
    ("--cluster", "h20+efa,gb300-nvl72", "--routing", "uniform,log-normal:0.6", "--context", "1024,4096"),
    ("--ranks", "8..64", "--experts-per-rank", "1..32", "--longest-step-ms", "50"),
    (),
)


@pytest.fixture
def narrow(wingspan: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "80")
    return wingspan


def whole(command: Command, *arguments: object) -> str:
    """What the command prints, checked; lines for a shell are as long as they must be."""
    ended = command(*map(str, arguments))
    assert ended.code == 0, ended.err
    shown = re.sub(r"\x1b\[[0-9;]*m", "", ended.out)
    for line in shown.splitlines():
        assert "…" not in line, (arguments, line)
        assert len(line.rstrip()) <= 80 or line.startswith((" ", "wingspan ")), (arguments, line)
    return shown


@pytest.mark.parametrize(("model", "cluster", "ranks"), STEPS)
def test_a_step(narrow: Command, model: str, cluster: str, ranks: int) -> None:
    assert "all parts" in whole(narrow, "simulate", model, "--cluster", cluster, "--ranks", ranks)


@pytest.mark.parametrize(("model", "cluster", "gpus", "more"), [(*plan[:3], plan[3:]) for plan in PLANS])
def test_a_plan(narrow: Command, model: str, cluster: str, gpus: int, more: tuple[str, ...]) -> None:
    whole(narrow, "plan", model, "--cluster", cluster, "--gpus", gpus, *more)


def test_a_terminal_shows_what_a_log_does(narrow: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ("simulate", "deepseek-v3", "--ranks", 64)
    log = whole(narrow, *step)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert whole(narrow, *step) == log
    assert "\x1b[" in narrow(*map(str, step)).out


@pytest.mark.parametrize("axes", SWEEPS)
def test_a_sweep(narrow: Command, axes: tuple[str, ...]) -> None:
    shown = whole(narrow, "sweep", "seed", *axes)
    assert "best that fits" in shown or "no point fits" in shown
    told = [line for line in shown.splitlines() if line.startswith("- ")]
    assert len(told) == len(set(told))


def test_one_point_is_a_sweep_too(narrow: Command) -> None:
    shown = whole(narrow, "sweep", "deepseek-v3", "--ranks", "64", "--longest-step-ms", "10")
    assert "best that fits: EP size 64" in shown
    assert "no step within 10 ms" in shown


def test_what_a_sweep_leaves_out_for_one_cause_is_one_sentence(narrow: Command) -> None:
    shown = whole(narrow, "sweep", "deepseek-v3", "--ranks", "8..128", "--experts-per-rank", "1..8")
    assert shown.count("left out:") == 1
    assert "more like this" in shown


def test_serving(narrow: Command) -> None:
    loads = ("--rate", "0.5,5000", "--num-requests", 50, "--price", 3, "--ttft-p99", 1)
    whole(narrow, "simulate-serving", "seed-small", "--ranks", 8, *loads)


def test_routing_and_places(narrow: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = narrow("synthesize", "log-normal", "--ranks", "16", "--tokens", "500", "--out", "routing.parquet")
    assert drawn.code == 0, drawn.err
    whole(narrow, "routing", "routing.parquet", "--ranks-per-node", "2,4")
    whole(narrow, "place", "routing.parquet", "--ranks", 16, "--experts-per-rank", 17)


def test_lists_and_models(narrow: Command) -> None:
    whole(narrow, "presets")
    whole(narrow, "atlas")
    for model in (*MODELS, TINY):
        whole(narrow, "inspect", model)
