"""`wingspan calibrate --from-bench`: from a benchmark's file to an engine that every prediction takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, TINY, Command
from tests.server.running import server
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

TRACE = str(CASES / "torch_trace.json")
TRACED = ("calibrate", TINY, "--ranks", "4", "--context", "64", "-b", "8", "--from-bench", TRACE)

ACTS = {
    "--from-bench": (*TRACED, "--from-bench", VLLM),
    "--max-sequences": (*TRACED, "--max-sequences", "2"),
    "--step-tokens": (*TRACED, "--step-tokens", "16"),
    "--cluster": (*TRACED, "--cluster", "a100"),
    "--ranks": (*TRACED, "--ranks", "8"),
    "--experts-per-rank": (*TRACED, "--experts-per-rank", "1"),
    "--placement": (*TRACED, "--placement", "round-robin", "--routing", "log-normal:1"),
    "--phase": (*TRACED, "--phase", "prefill"),
    "--tokens-per-gpu": (*TRACED, "-b", "9"),
    "--total-sequences": (*TRACED, "--total-sequences", "8"),
    "--context": (*TRACED, "--context", "100"),
    "--routing": (*TRACED, "--routing", "log-normal:1"),
    "--schedule": (*TRACED, "--schedule", "two-batch"),
    "--dispatcher": (*TRACED, "--dispatcher", "hierarchical"),
    "--attention-ranks": (*TRACED, "--attention-ranks", "2"),
    "--expert-tp": (*TRACED, "--expert-tp", "2"),
    "--from-weights": (*TRACED, "--from-weights"),
    "--mtp": (*TRACED, "--mtp", "1"),
    "--acceptance": (*TRACED, "--acceptance", "0.5"),
    "--precision": (*TRACED, "--precision", "kv=fp8"),
    "--engine": (*TRACED, "--engine", "vllm"),
    "--seed": (*TRACED, "--seed", "5"),
    "--json": (*TRACED, "--json"),
    "--out": (*TRACED, "--out", "OUT"),
}
"""What each option of a prediction changes; those of a measurement are refused beside them."""


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
    assert found["fitted"] == ["step_seconds", "sequence_seconds", "token_seconds"]
    first = found["measurements"][0]
    assert first["measured"]["time per output token"] == 0.032
    assert first["after"]["time per output token"] == pytest.approx(0.032, rel=0.01)
    assert first["before"]["time per output token"] < 0.01


def test_without_out_the_file_is_printed(wingspan: Command, tmp_path: Path) -> None:
    done = wingspan(*TRACED)
    path = tmp_path / "printed.yaml"
    path.write_text(done.out)
    assert engine_of(str(path), "engine").step_seconds > 0.01
    assert "one measurement determines one term" in done.err


def test_every_option_of_a_prediction_acts_or_is_refused(wingspan: Command, tmp_path: Path) -> None:
    def outcome(arguments: tuple[str, ...]) -> tuple[int, str, str, int]:
        done = wingspan(*(str(tmp_path / "e.yaml") if one == "OUT" else one for one in arguments))
        return done.code, done.out, done.err, len(list(tmp_path.iterdir()))

    before = outcome(TRACED)
    assert before[0] == 0
    assert [name for name, given in ACTS.items() if outcome(given) == before] == []


@pytest.mark.parametrize("limit", [("--max-sequences", "2"), ("--step-tokens", "16")])
def test_the_limits_of_a_server_act(wingspan: Command, limit: tuple[str, str]) -> None:
    assert wingspan(*BASE[:4], *BASE[8:], *limit, "--json").out != wingspan(*BASE, "--json").out


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


def test_a_server_of_this_machine_is_met_by_the_engine_fitted_to_it(
    wingspan: Command, tmp_path: Path
) -> None:
    """Of the way from a server to a prediction; how close it comes on a quiet machine is measured elsewhere."""
    files = []
    with server("--ranks", "1") as running:
        for concurrency in (1, 6):
            files += ["--from-bench", str(tmp_path / f"{concurrency}.json")]
            done = wingspan(
                "bench", "serve", running.address, "--concurrency", str(concurrency), "--num-requests",
                str(max(3, concurrency)), "--prompt-tokens", "16", "--output-tokens", "12", "--length-spread", "0",
                "--out", files[-1],
            )  # fmt: skip
            assert done.code == 0, done.err
    limits = ("--max-sequences", "8", "--step-tokens", "128")
    done = wingspan("calibrate", TINY, "--ranks", "1", *limits, *files, "--json")
    assert done.code == 0, done.err
    for one in json.loads(done.out)["measurements"]:
        for figure in ("time per output token", "output tokens/s"):
            # Other work on this machine may slow one load down and not the next.
            assert one["after"][figure] == pytest.approx(one["measured"][figure], rel=1.5), figure
            before, after = (
                abs(one[when][figure] / one["measured"][figure] - 1) for when in ("before", "after")
            )
            assert after < before, figure


def test_the_steps_of_a_run_are_fitted_from_its_trace(wingspan: Command, tmp_path: Path) -> None:
    trace, out = tmp_path / "t.json", tmp_path / "e.yaml"
    run = wingspan(
        "run", TINY, "--ranks", "2", "--prompt-ids", "1,2,3", "--prompt-ids", "4,5", "--max-new-tokens", "4",
        "--trace", str(trace),
    )  # fmt: skip
    assert run.code == 0, run.err
    asked = ("calibrate", TINY, "--ranks", "2", "--from-bench", str(trace), "--out", str(out))
    refused = wingspan(*asked)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "give --context" in refused.err
    done = wingspan(*asked, "--context", "8")
    assert done.code == 0, done.err
    assert "decode, 2 tokens" in done.err
    assert "step, ms" in done.err
    found = engine_of(str(out), "engine")
    assert max(found.step_seconds, found.layer_seconds) > 0
