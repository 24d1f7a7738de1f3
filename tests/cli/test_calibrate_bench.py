"""`wingspan calibrate --from-bench`: from a benchmark's file to an engine that every prediction takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, TINY, Command
from wingspan.cli.option_rules import RULES
from wingspan.specs.engines import EngineProfile, engine_of

CASES = REPOSITORY / "tests" / "cases" / "benchmarks"
VLLM, SGLANG = str(CASES / "vllm_c4.json"), str(CASES / "sglang.jsonl")
BASE = (
    "calibrate",
    TINY,
    "--ranks",
    "2",
    "--max-sequences",
    "8",
    "--step-tokens",
    "256",
    "--from-bench",
    SGLANG,
)

ACTS = {
    "--from-bench": ("--from-bench", VLLM),
    "--max-sequences": ("--max-sequences", "2"),
    "--step-tokens": ("--step-tokens", "16"),
    "--cluster": ("--cluster", "a100"),
    "--ranks": ("--ranks", "4"),
    "--experts-per-rank": ("--experts-per-rank", "1"),
    "--placement": ("--placement", "round-robin", "--routing", "log-normal:1"),
    "--phase": ("--phase", "decode"),
    "--tokens-per-gpu": ("-b", "8"),
    "--total-sequences": ("--total-sequences", "8"),
    "--context": ("--context", "100"),
    "--routing": ("--routing", "log-normal:1"),
    "--schedule": ("--schedule", "two-batch"),
    "--dispatcher": ("--dispatcher", "hierarchical"),
    "--attention-ranks": ("--attention-ranks", "2"),
    "--expert-tp": ("--expert-tp", "4"),
    "--from-weights": ("--from-weights",),
    "--mtp": ("--mtp", "1"),
    "--acceptance": ("--acceptance", "0.5"),
    "--precision": ("--precision", "kv=fp8"),
    "--engine": ("--engine", "vllm"),
    "--seed": ("--routing", "log-normal:1", "--seed", "5"),
    "--json": ("--json",),
    "--out": ("--out", "OUT"),
}
"""What each option of a prediction changes; those of a measurement are refused beside them."""
MEASURING = [rule.option for rule in RULES["calibrate"] if "measures nothing" in rule.mend]


def test_a_file_gives_an_engine_that_predictions_take(wingspan: Command, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    done = wingspan(*BASE, "--out", str(out))
    assert done.code == 0, done.err
    assert "fitted: step_seconds" in done.err
    assert "TPOT, ms" in done.err
    assert "no lengths of single requests" in " ".join(done.err.split())
    assert f"wrote {out}" in done.err
    shown = done.err[: done.err.index("wrote")].replace(str(CASES), "")
    assert max(len(line) for line in shown.splitlines()) <= 80
    found = engine_of(str(out), "engine")
    assert isinstance(found, EngineProfile)
    assert found.name == "mine"
    assert found.step_seconds > 0.02
    deployment = tmp_path / "d.json"
    for command in (
        ("simulate", TINY, "--ranks", "8", "-b", "1", "--out", str(deployment)),
        ("sweep", TINY, "--ranks", "4,8", "-b", "1"),
        ("plan", TINY, "--gpus", "8", "-b", "1"),
        ("simulate-serving", TINY, "--ranks", "8", "--num-requests", "40", "--output-tokens", "8", "--rate", "5",
         "--prompt-tokens", "64"),
    ):  # fmt: skip
        plain = json.loads(wingspan(*command, "--json").out)
        with_engine = wingspan(*command, "--engine", str(out), "--json")
        assert with_engine.code == 0, with_engine.err
        assert json.loads(with_engine.out) != plain, command
    step = json.loads(wingspan("simulate", str(deployment), "--json").out)
    assert step["step_seconds"] > found.step_seconds
    assert "mine as fitted on 2 measurements of one's own" in step["rests_on"]


def test_as_json_it_says_everything(wingspan: Command) -> None:
    done = wingspan(*BASE, "--json")
    found = json.loads(done.out)
    assert found["fitted"] == ["step_seconds", "sequence_seconds"]
    first = found["measurements"][0]
    assert first["measured"]["time per output token"] == 0.032
    assert first["after"]["time per output token"] == pytest.approx(0.032, rel=0.01)
    assert first["before"]["time per output token"] < 0.01


def test_without_out_the_file_is_printed(wingspan: Command, tmp_path: Path) -> None:
    done = wingspan("calibrate", TINY, "--ranks", "8", "--from-bench", VLLM)
    path = tmp_path / "printed.yaml"
    path.write_text(done.out)
    assert engine_of(str(path), "engine").step_seconds > 0.02
    assert "one measurement determines one term" in done.err


def test_every_option_of_a_prediction_acts_or_is_refused(wingspan: Command, tmp_path: Path) -> None:
    def outcome(*more: str) -> tuple[int, str, str, int]:
        placed = [str(tmp_path / "e.yaml") if one == "OUT" else one for one in more]
        done = wingspan(*BASE, *placed)
        return done.code, done.out, done.err, len(list(tmp_path.iterdir()))

    before = outcome()
    assert before[0] == 0
    assert [name for name, given in ACTS.items() if outcome(*given) == before] == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--from-bench", VLLM), "--from-bench: name the model or the deployment file"),
        ((TINY,), "only --from-bench predicts"),
        (("--from-bench", VLLM, "--engine", "tgi"), "--from-bench: name the model"),
        ((TINY, "--from-bench", "none.json"), "none.json: cannot be read"),
        ((TINY, "--from-bench", "pyproject.toml"), "pyproject.toml: not JSON"),
        (
            (TINY, "--from-bench", VLLM, "--engine", "tgi"),
            "--engine tgi: use one of none, sglang, vllm, trtllm",
        ),
        ((TINY, "--from-bench", VLLM, "--phase", "decode"), "--phase: a server's load says it"),
        ((TINY, "--from-bench", VLLM, "--device", "cpu"), "--device cpu: does nothing here"),
        ((TINY, "--from-bench", VLLM, "--out", "/nowhere/e.yaml"), "the folder /nowhere does not exist"),
        (("--max-sequences", "4"), "--max-sequences 4: does nothing here: only --from-bench"),
    ],
)
def test_what_does_not_go_together_is_refused(
    wingspan: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = wingspan("calibrate", *arguments)
    assert done.code == 2
    assert complaint in done.err
    assert done.err.count("\n") == 1
