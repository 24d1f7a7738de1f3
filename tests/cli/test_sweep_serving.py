"""`sweep` and `simulate-serving` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.command import TINY, Command
from wingspan.cli.main import application
from wingspan.errors import InputError
from wingspan.schedule.serving_result import ServingReport
from wingspan.schedule.sweep_result import SweepResult

SERVING = [
    "simulate-serving",
    "mixtral-8x7b",
    "--ranks",
    "8",
    "--num-requests",
    "50",
    "--prompt-tokens",
    "200",
]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(application(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_sweep_prints_a_table_with_conditions_and_findings() -> None:
    shown = run("sweep", "seed", "--ranks", "16,32", "--tokens-per-gpu", "4", "--context", "128")
    assert "seed: 61 layers, top-8 of as many experts as GPUs" in shown
    assert "parallel efficiency" in shown
    assert "EP 32" in shown


def test_a_sweep_as_json_and_csv_is_that_alone() -> None:
    options = (
        "sweep",
        "deepseek-v3",
        "--ranks",
        "32,64",
        "--schedule",
        "sequential,two-batch",
        "--tokens-per-gpu",
        "8",
    )
    result = SweepResult.model_validate_json(run(*options, "--json"))
    assert [p.at for p in result.points][1] == {"schedule": "sequential", "ranks": 64}
    assert [p.experts_per_rank for p in result.points] == [8, 4, 8, 4]  # 256 experts stay
    rows = list(csv.DictReader(io.StringIO(run(*options, "--csv"))))
    assert [float(row["step_seconds"]) for row in rows] == [p.step_seconds for p in result.points]


def test_a_sweep_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert "page:" in run("sweep", "seed", "--ranks", "16", "--experts-per-rank", "1..4", "--html", str(page))
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "Plotly.react" in text


def test_one_point_is_a_sweep_too() -> None:
    shown = json.loads(run("sweep", "seed", "--ranks", "16", "-b", "4", "--context", "128", "--json"))
    assert [point["at"] for point in shown["points"]] == [{"ranks": 16}]


def test_serving_prints_json_that_is_a_report() -> None:
    report = ServingReport.model_validate_json(run(*SERVING, "--rate", "2,20", "--json"))
    assert [point.offered_requests_per_second for point in report.points] == [2, 20]
    assert report.ranks == 8
    assert report.points[0].requests >= 50
    assert report.highest_load_requests_per_second is None


def test_serving_searches_the_highest_load_and_draws_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = run(*SERVING, "--find-limit", "--tpot-p99", "0.1", "--ttft-p99", "1", "--html", str(page))
    assert "highest load within the limits:" in shown
    assert "Time to first token" in page.read_text()


def test_serving_as_csv_has_one_line_per_load() -> None:
    rows = list(csv.DictReader(io.StringIO(run(*SERVING, "--rate", "1,2,4", "--csv"))))
    assert [float(row["offered_requests_per_second"]) for row in rows] == [1, 2, 4]


def test_serving_on_separate_groups_takes_a_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"arrival_seconds": n / 10, "prompt_tokens": 100 + n, "output_tokens": 5} for n in range(30)]
    trace.write_text("\n".join(map(json.dumps, rows)))
    options = (
        "simulate-serving",
        "qwen3-235b-a22b",
        "--ranks",
        "32",
        "--separate-prefill",
        "16",
        "--requests",
        str(trace),
    )
    report = ServingReport.model_validate_json(run(*options, "--json"))
    assert [group.name for group in report.groups] == ["prefill", "decode"]
    assert report.points[0].requests == 30
    assert report.points[0].offered_requests_per_second == pytest.approx(10)


def test_requests_beyond_the_models_context_are_cut_and_said(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_seconds,prompt_tokens,output_tokens\n0,40000,960\n1,40000,961\n2,50000,1\n")
    read = run("simulate-serving", "qwen3-235b-a22b", "--ranks", "32", "--requests", str(trace), "--json")
    notes = ServingReport.model_validate_json(read).notes
    assert "2 of 3 requests are cut to the model's 40,960 tokens" in notes
    drawn = run(*SERVING, "--prompt-tokens", "30000", "--length-spread", "0.5", "--json")
    notes = ServingReport.model_validate_json(drawn).notes
    assert any("drawn requests are cut to the model's" in note for note in notes)


@pytest.mark.parametrize(("file", "count"), [("azure_llm_2023_conv_head.csv", 8), ("burstgpt_head.csv", 3)])
def test_public_traces_are_taken_as_they_are(wingspan: Command, file: str, count: int) -> None:
    trace = ("--requests", f"tests/cases/requests/{file}")
    old = wingspan("serving", "deepseek-v3", "--cluster", "h200", "--ep", "32", *trace, "--json")
    assert old.code == 0, old.err
    report = ServingReport.model_validate_json(old.out)
    assert report.points[0].requests == count
    assert any("is time 0" in note for note in report.notes)


def test_a_trace_is_stretched_cut_short_and_that_is_said() -> None:
    trace = ("--requests", "tests/cases/requests/azure_llm_2023_conv_head.csv")
    shown = run(
        "simulate-serving",
        "mixtral-8x7b",
        "--ranks",
        "8",
        *trace,
        "--rate",
        "5",
        "--num-requests",
        "4",
        "--json",
    )
    report = ServingReport.model_validate_json(shown)
    assert (report.points[0].offered_requests_per_second, report.points[0].requests) == (5, 4)
    assert any("stretched or pressed from the 0.637 requests/s recorded" in note for note in report.notes)
    assert any("the first 4 of 8 requests taken" in note for note in report.notes)


def test_prefix_caching_finds_what_prompts_share_and_needs_a_trace_that_says_it() -> None:
    trace = ("--requests", "tests/cases/requests/mooncake_head.jsonl")
    command = (
        "simulate-serving",
        "qwen3-235b-a22b",
        "--cluster",
        "h200",
        "--ranks",
        "8",
        "--attention-ranks",
        "8",
        *trace,
    )
    without = ServingReport.model_validate_json(run(*command, "--json"))
    cached = ServingReport.model_validate_json(run(*command, "--prefix-caching", "--json"))
    assert without.points[0].prefix_hit_share is None
    # One home: the first three come together, and the third begins when the first block of the others is computed;
    # the last finds 12 blocks of the one before it.
    assert cached.points[0].prefix_hit_share == 13 * 512 / (6758 + 7322 + 2290 + 9013 + 6506)
    assert cached.points[0].ttft_seconds.mean < without.points[0].ttft_seconds.mean
    with pytest.raises(InputError, match="nothing says what these prompts share"):
        run(*SERVING, "--prefix-caching")


def test_lengths_without_times_arrive_as_drawn_ones(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "why " * 50}, {"from": "gpt", "value": "so " * 20}]
    file = tmp_path / "talks.json"
    file.write_text(json.dumps([{"conversations": talk}] * 20))
    shown = run(
        "simulate-serving", "mixtral-8x7b", "--ranks", "8", "--requests", str(file), "--rate", "2,4", "--json"
    )
    report = ServingReport.model_validate_json(shown)
    assert [point.offered_requests_per_second for point in report.points] == [2, 4]
    assert any("has no arrivals; they are drawn" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--find-limit",), "needs a limit"),
        (("--rate", "0"), "must be above 0"),
        (("--schedule", "fastest"), "name one"),
        (("--max-sequences", "64", "--step-tokens", "64"), "leaves none for prefill"),
    ],
)
def test_bad_serving_options_are_one_clear_line(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CliRunner().invoke(application(), [*SERVING, *options], catch_exceptions=False)


def test_simulate_and_plan_write_pages(tmp_path: Path) -> None:
    step, plan = tmp_path / "step.html", tmp_path / "plan.html"
    assert "page:" in run("simulate", "seed", "--ranks", "64", "-b", "4", "--html", str(step))
    assert "close up" in step.read_text()
    run("plan", "mixtral-8x7b", "--gpus", "8", "--html", str(plan))
    assert "Which layout" in plan.read_text()


def test_a_sweep_over_three_axes_cuts_nothing_and_names_its_best(
    wingspan: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    axes = ("--ranks", "32,128", "-b", "1,512", "--routing", "uniform,log-normal:0.6")
    done = wingspan("sweep", "deepseek-v3", *axes, "--price", "2", "--longest-step-ms", "60")
    assert done.code == 0, done.err
    assert "…" not in done.out
    assert "best that fits: " in done.out
    assert "best within 60 ms: " in done.out
    none = wingspan("sweep", "deepseek-v3", "--ranks", "8", "-b", "64,128")
    assert "no point fits into memory" in none.out


def test_a_seed_is_refused_where_nothing_is_drawn(wingspan: Command, tmp_path: Path) -> None:
    timed, untimed = tmp_path / "timed.csv", tmp_path / "untimed.csv"
    timed.write_text("arrival_seconds,prompt_tokens,output_tokens\n0,9,3\n1,20,4\n2,30,3\n")
    untimed.write_text("prompt_tokens,output_tokens\n9,3\n20,4\n30,3\n")
    asked = ("simulate-serving", TINY, "--ranks", "8", "--seed", "5", "--json", "--requests")
    refused = wingspan(*asked, str(timed))
    assert refused.code == 2, refused.out
    assert "--seed 5: does nothing here" in refused.err
    for drawn in ((str(timed), "--routing", "log-normal:0.5"), (str(untimed), "--rate", "2")):
        done = wingspan(*asked, *drawn)
        assert done.code == 0, done.err
