"""An option that would do nothing is refused with the reason, before any work; so is a number that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import TINY, Command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("run", TINY, "--cluster", "nonsense"),
            "--cluster nonsense: does nothing here: only --schedule auto",
        ),
        (("run", TINY, "--seed", "4"), "--seed 4: does nothing here: at --temperature 0"),
        (
            ("simulate", TINY, "--weights", "int3"),
            "--precision weights=int3: 'int3' is no format; use one of fp32, bf16, fp16, fp8, int8, mxfp4",
        ),
        (("plan", TINY, "--precision", "kv=FP8"), "'FP8' is no format; use one of fp32"),
        (("run", TINY, "--top-k", "4"), "--top-k 4: does nothing here: at --temperature 0"),
        (("run", TINY, "--top-p", "0.5"), "--top-p 0.5: does nothing here: at --temperature 0"),
        (("run", TINY, "--min-p", "0.5"), "--min-p 0.5: does nothing here: at --temperature 0"),
        (("run", TINY, "--temperature", "inf"), "--temperature inf: use a finite number"),
        (
            ("simulate-serving", "--requests", "r.csv", "--prompt-tokens", "9"),
            "--prompt-tokens 9: does nothing here",
        ),
        (
            ("simulate-serving", "--requests", "r.csv", "--length-spread", "0.5"),
            "--length-spread 0.5: does nothing here",
        ),
        (
            ("simulate-serving", "--find-limit", "--rate", "3,4", "--ttft-p99", "1"),
            "--rate 3,4: does nothing here",
        ),
        (("simulate-serving", "--requests", "gone.csv"), "gone.csv: no such file"),
        (("claims", "--cluster", "moon"), "moon: neither a cluster file nor a preset"),
        (("claims", "--json", "--brief"), "--brief: does nothing here"),
        (("validate", "--silicon", "--headlines"), "--headlines: does nothing here"),
        (("validate", "--silicon", "--data", "x"), "--data x: does nothing here"),
        (("validate", "--end-to-end", "x.csv", "--silicon"), "--silicon: does nothing here"),
        (("validate", "--end-to-end", "x.csv", "--data", "x"), "--data x: does nothing here"),
        (("validate", "--end-to-end", "x.csv", "--headlines"), "--headlines: does nothing here"),
        (("validate", "--json", "--headlines"), "--headlines: does nothing here"),
        (("place", "--synthetic", "uniform", "--horizon-steps", "9"), "--horizon-steps 9: does nothing here"),
        (
            ("place", "--synthetic", "uniform", "--placement", "linear"),
            "--placement linear: does nothing here",
        ),
        (
            ("place", "--synthetic", "uniform", "--expert-memory-gb", "inf"),
            "--expert-memory-gb inf: use a finite",
        ),
        (("routing", "t.parquet", "--placement", "p", "--ranks", "9"), "--ranks 9: does nothing here"),
        (("testbed", "down", "--all", "--name", "x"), "--name x: does nothing here"),
        (("testbed", "up", "--nodes", "2", "--nodes-per-group", "2"), "give both, or neither"),
        (("testbed", "up", "--link-rate", "fast"), "--link-rate fast: expected a rate"),
        (("testbed", "up", "--group-uplink", "1gbit"), "--group-uplink and --nodes-per-group go together"),
        (("simulate", "seed", "--chunks", "3", "--schedule", "two-batch"), "--chunks is --schedule today"),
        (("simulate", "seed", "--expected-loads", "--seed", "3"), "--seed 3: does nothing here"),
    ],
)
def test_what_would_do_nothing_is_refused(wingspan: Command, arguments: tuple[str, ...], says: str) -> None:
    done = wingspan(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err


def test_the_seed_is_of_all_draws(wingspan: Command, tmp_path: Path) -> None:
    """A random placement is drawn from it too."""
    saved = tmp_path / "d.json"
    options = (
        "--ranks",
        "8",
        "--placement",
        "random",
        "--expected-loads",
        "--seed",
        "3",
        "--out",
        str(saved),
    )
    assert wingspan("simulate", "mixtral-8x7b", *options).code == 0
    made = json.loads(saved.read_text())
    assert (made["placement"]["seed"], made["workload"]["seed"]) == (3, 3)


def test_a_report_of_a_run_is_written(wingspan: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--ranks", "2", "--experts-per-rank", "4", "--prompt-ids", "5,9", "--max-new-tokens", "2")
    assert wingspan("run", TINY, *options, "--out", str(report)).code == 0
    assert len(json.loads(report.read_text())["outputs"][0]["token_ids"]) == 2


def test_windows_of_a_step_change_the_steps_recorded(wingspan: Command, tmp_path: Path) -> None:
    from wingspan.routing.trace_file import TraceFile

    text, out = tmp_path / "text.txt", tmp_path / "trace.parquet"
    text.write_text("import this\n" * 200)
    steps = []
    for windows in ("2", "4"):
        common = ("record", TINY, "--text", str(text), "--request-tokens", "16", "--max-tokens", "256")
        options = ("--ranks", "1", "--experts-per-rank", "8", "--requests-per-step", windows)
        done = wingspan(*common, *options, "--out", str(out))
        assert done.code == 0, done.err
        steps.append(len(set(TraceFile.open(out).read().step_T.tolist())))
    assert steps == [8, 4]
