"""`plan`, `simulate`, `claims`, `diff` as their user runs them."""

import csv
import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.cli.without_torch import run_without_torch
from tests.report.test_perfetto import check_trace
from wingspan.cli.main import _PANELS, application
from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.schedule.result import StepReport
from wingspan.specs.models import load_model

_CASES = Path(__file__).parents[1] / "simulate" / "cases"
_H20, _QWEN = _CASES / "h20.yaml", _CASES / "qwen1.5-moe-a2.7b.config.json"
_CONFIG = Path(__file__).parents[2] / "models" / "tiny" / "config.json"


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(application(), [str(a) for a in arguments])


def test_simulate_prints_its_tables() -> None:
    result = _run("simulate", "deepseek-v3", "--ranks", "64", "-b", "128")
    assert result.exit_code == 0
    for text in (
        "step ",
        "tokens/s per GPU",
        "fits",
        "dispatch (transfer)",
        "scale-out link",
        "kv cache",
        "Slowest",
    ):
        assert text in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_simulate_json_is_a_step_report() -> None:
    result = _run("simulate", "mixtral-8x7b", "--routing", "log-normal:0.5", "--json")
    report = StepReport.model_validate_json(result.stdout)
    assert (report.ranks, report.experts_per_rank, report.source) == (8, 1, "predicted")
    assert report.imbalance > 1.2


def test_simulate_csv_has_a_line_per_rank() -> None:
    lines = list(csv.DictReader(io.StringIO(_run("simulate", "mixtral-8x7b", "--csv").stdout)))
    assert [int(line["rank"]) for line in lines] == list(range(8))
    assert float(lines[0]["expert_seconds"]) > 0


def test_simulate_writes_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "step.json"
    _run("simulate", "mixtral-8x7b", "--schedule", "two-batch", "--trace", trace)
    events = json.loads(trace.read_text())["traceEvents"]
    assert {e["pid"] for e in events} == set(range(8))
    check_trace(events)
    slices = [e for e in events if e["ph"] == "X"]
    assert {e["args"]["micro_batch"] for e in slices if e["name"] == "expert"} == {0, 1}
    assert {"decode", "decode step", "micro-batch 1", "dispatch"} <= {e["name"] for e in slices}


def test_a_saved_deployment_is_simulated_alike_and_diffed(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    first = _run("simulate", "mixtral-8x7b", "--out", one, "--json")
    assert _run("simulate", one, "--json").stdout == first.stdout
    second = _run("simulate", one, "--tokens-per-gpu", "128", "--out", two, "--json")
    assert json.loads(second.stdout)["tokens"] == 8 * 128
    same = _run("diff", one, one)
    assert (same.exit_code, same.stdout) == (0, "no difference\n")
    other = _run("diff", one, two, "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout) == [{"key": "workload.tokens_per_gpu", "first": 64, "second": 128}]
    assert "workload.tokens_per_gpu" in _run("diff", one, two).stdout


def test_loads_from_a_file(tmp_path: Path) -> None:
    loads = tmp_path / "loads.json"
    loads.write_text(json.dumps([[9, 1, 1, 1, 1, 1, 1, 1]]))
    skewed = json.loads(_run("simulate", "mixtral-8x7b", "--routing", loads, "--json").stdout)
    assert skewed["imbalance"] > 3


def test_loads_from_a_routing_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.parquet"
    shape = (
        "--layers",
        "32",
        "--experts",
        "8",
        "--experts-per-token",
        "2",
        "--tokens",
        "4000",
        "--ranks",
        "8",
    )
    assert _run("synthesize", "power-law:1.0", *shape, "--out", trace).exit_code == 0
    skewed = json.loads(_run("simulate", "mixtral-8x7b", "--routing", trace, "--json").stdout)
    even = json.loads(_run("simulate", "mixtral-8x7b", "--json").stdout)
    assert skewed["imbalance"] > 1.5 * even["imbalance"]


def test_a_placement_file_is_simulated(tmp_path: Path) -> None:
    """What `place --out` writes; here the linear placement, so that the step must come out alike."""
    model = load_model("mixtral-8x7b")
    slots = linear(len(model.moe_layers), model.experts.count, 8, 1)
    (tmp_path / "placement.json").write_text(json.dumps(slots.to_dict()))
    asked = _run("simulate", "mixtral-8x7b", "--placement", tmp_path / "placement.json", "--json")
    plain = _run("simulate", "mixtral-8x7b", "--ranks", "8", "--json")
    assert asked.exit_code == 0
    assert StepReport.model_validate_json(asked.stdout) == StepReport.model_validate_json(plain.stdout)
    both = _run("simulate", "mixtral-8x7b", "--placement", tmp_path / "placement.json", "--ranks", "16")
    assert "leave --ranks" in str(both.exception)


def test_a_step_limit_leaves_the_largest_batch_within_it(tmp_path: Path) -> None:
    out = tmp_path / "best.json"
    arguments = ("plan", "mixtral-8x7b", "--gpus", "8", "--out", out, "--json")
    made = json.loads(_run(*arguments, "--longest-step-ms", "12").stdout)["best"]
    assert made["step_seconds"] <= 0.012
    larger = str(made["tokens_per_gpu"] + 1)
    step = json.loads(_run("simulate", out, "-b", larger, "--json").stdout)["step_seconds"]
    assert step > 0.012


def test_the_contention_note_is_there_only_where_something_overlaps() -> None:
    notes = {
        schedule: json.loads(_run("simulate", "mixtral-8x7b", "--schedule", schedule, "--json").stdout)[
            "notes"
        ]
        for schedule in ("sequential", "two-batch")
    }
    assert not any("Contention" in note for note in notes["sequential"])
    assert any("Contention" in note for note in notes["two-batch"])


def test_a_config_json_is_read() -> None:
    result = _run("simulate", _CONFIG, "--tokens-per-gpu", "4", "--context", "64", "--json")
    assert json.loads(result.stdout)["ranks"] == 8


@pytest.mark.parametrize("preset", ["deepseek-v3", "qwen3-235b-a22b", "mixtral-8x7b", "gpt-oss-120b"])
def test_plan_finds_the_best_ep_on_64_gpus(preset: str) -> None:
    made = json.loads(_run("plan", preset, "--gpus", "64", "--json").stdout)
    assert made["fits"]
    assert made["best"] in made["choices"]
    fastest = max(choice["tokens_per_second_per_gpu"] for choice in made["choices"])
    assert made["best"]["tokens_per_second_per_gpu"] == fastest
    assert made["best"]["peak_memory_bytes"] <= made["gpu_memory_bytes"] == 80e9


def test_plan_prints_choices_and_csv() -> None:
    shown = _run("plan", "mixtral-8x7b", "--gpus", "8")
    for text in ("best:", "tokens/s", "most sequences per GPU that fit", "kv cache"):
        assert text in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    lines = list(csv.DictReader(io.StringIO(_run("plan", "mixtral-8x7b", "--gpus", "8", "--csv").stdout)))
    layouts = [(line["ranks"], line["expert_tensor_parallel"]) for line in lines]
    assert layouts == [("2", "1"), ("2", "2"), ("4", "1"), ("4", "4"), ("8", "1"), ("8", "8")]


@pytest.mark.parametrize(
    ("arguments", "gpus", "largest"),
    [
        (("deepseek-v3", "--cluster", _H20), 16, 16),
        (("deepseek-v3", "--cluster", _H20, "--gpus", "8"), 8, 8),
        (("deepseek-v3", "--cluster", "gb200-nvl72"), 72, 72),
        ((_QWEN, "--gpus", "16"), 16, 16),
        ((_QWEN, "--gpus", "6"), 6, 6),
        ((_QWEN, "--cluster", _H20), 16, 16),
    ],
)
def test_plan_takes_any_cluster_and_any_number_of_experts(
    arguments: tuple[object, ...], gpus: int, largest: int
) -> None:
    """Without a number of GPUs, the cluster's own."""
    made = json.loads(_run("plan", *arguments, "--context", "1024", "--json").stdout)
    assert made["fits"]
    assert max(choice["ranks"] for choice in made["choices"]) == largest
    best = made["best"]
    assert best["tokens_per_second"] == pytest.approx(best["tokens_per_second_per_gpu"] * gpus)
    assert f'"ranks": {largest},' in json.dumps(made)


def test_a_model_of_seven_experts_is_planned(tmp_path: Path) -> None:
    config = json.loads(_QWEN.read_text()) | {"num_experts": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = json.loads(_run("plan", tmp_path, "--gpus", "8", "--json").stdout)
    whole = [choice["ranks"] for choice in made["choices"] if choice["expert_tensor_parallel"] == 1]
    assert whole == [1, 2, 4, 8]


def test_simulate_takes_ranks_that_its_cluster_has() -> None:
    ranks = {
        arguments: json.loads(_run("simulate", *arguments, "-b", "4", "--context", "512", "--json").stdout)[
            "ranks"
        ]
        for arguments in ((_QWEN,), (_QWEN, "--cluster", _H20), (_QWEN, "--experts-per-rank", "15"))
    }
    assert list(ranks.values()) == [64, 16, 4]
    refused = str(_run("simulate", _QWEN, "--cluster", _H20, "--experts-per-rank", "1").exception)
    assert "16 GPUs of h20 hold 16 of 60 experts; use 4 or more" in refused


def test_a_plan_is_simulated_alike_from_its_file(tmp_path: Path) -> None:
    """Spare ranks, chosen dispatcher and all: the file says it whole."""
    out = tmp_path / "best.json"
    made = json.loads(_run("plan", _QWEN, "--gpus", "8", "--out", out, "--json").stdout)["best"]
    again = json.loads(_run("simulate", out, "--json").stdout)
    assert again["step_seconds"] == made["step_seconds"]
    assert max(again["peak_memory_bytes"]) == made["peak_memory_bytes"]
    from_file = json.loads(_run("plan", out, "--gpus", "8", "--json").stdout)
    assert from_file["best"]["ranks"] == made["ranks"]


def test_plan_says_what_overflows_and_three_ways_out() -> None:
    arguments = ("plan", "seed", "--cluster", "seed-ideal", "-b", "16", "--context", "1024")
    shown = _run(*arguments).stdout
    for text in ("nothing fits", "memory overflows with: kv cache", "cheapest ways out"):
        assert text in shown
    made = json.loads(_run(*arguments, "--json").stdout)
    assert (made["fits"], made["breaking_part"], len(made["ways_out"])) == (False, "kv cache", 3)


def test_plan_writes_the_best_deployment(tmp_path: Path) -> None:
    out = tmp_path / "best.json"
    made = json.loads(_run("plan", "mixtral-8x7b", "--gpus", "8", "--out", out, "--json").stdout)
    again = json.loads(_run("simulate", out, "--json").stdout)
    assert again["step_seconds"] == made["best"]["step_seconds"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulate", "no-such-model"), ["no-such-model", "presets"]),
        (("simulate", "seed", "--cluster", "no-such-cluster"), ["no-such-cluster", "h100-sxm"]),
        (("simulate", "seed", "--routing", "zipf"), ["zipf", "power-law"]),
        (("simulate", "seed", "--routing", "power-law:x"), ["power-law:0.8"]),
        (("simulate", "seed", "--schedule", "magic"), ["schedule", "magic"]),
        (("simulate", "seed", "--weights", "int3"), ["weights", "int3"]),
        (("simulate", "seed", "--ranks", "12"), ["12", "8"]),
        (("simulate", "seed", "--ranks", "8", "--experts-per-rank", "2"), ["64 experts", "8"]),
        (("simulate", "seed", "--attention-ranks", "3"), ["attention_ranks 3"]),
        (("diff", "nowhere.json", "nowhere.json"), ["nowhere.json"]),
    ],
)
def test_errors_are_one_line_with_the_mend(arguments: tuple[str, ...], words: list[str]) -> None:
    result = _run(*arguments)
    assert isinstance(result.exception, InputError)
    text = str(result.exception)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        (
            "simulate",
            "deepseek-v3",
            "--ranks",
            "64",
            "--trace",
            "{tmp}/trace.json",
            "--out",
            "{tmp}/made.json",
        ),
        ("simulate", str(_CONFIG), "--csv"),
        ("plan", "mixtral-8x7b", "--gpus", "8"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_planning_needs_neither_torch_nor_transformers(arguments: tuple[str, ...], tmp_path: Path) -> None:
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    done = run_without_torch(*filled)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_import_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys, wingspan.cli.main as m\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'pydantic', 'plotly', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_prediction_loads_only_what_it_uses() -> None:
    """Files of other commands, engines' formats, pages and other executors take longer to load than it does."""
    code = (
        "import sys, wingspan.cli.main as m\n"
        "sys.argv[1:] = ['simulate', 'deepseek-v3', '--ranks', '256', '-b', '128', '--json']\n"
        "m.sys.exit = lambda code: print(*sys.modules, file=sys.stderr)\n"
        "m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr.split()
    assert "wingspan.cli.simulate" in loaded
    rooms = (
        "balance client interop models runtime server testbed placement_file front schedule.sweep_result "
        "schedule.serving_result report.page report.terminal cli.progress simulate.planning"
    )
    libraries = "logging plotly pyarrow rich.progress scipy torch transformers"
    others = [
        f"cli.{name.replace('-', '_')}" for names in _PANELS.values() for name in names if name != "simulate"
    ]
    unused = {*libraries.split(), *(f"wingspan.{room}" for room in (*rooms.split(), *others))}
    assert not unused & set(loaded)


def test_help_starts_at_once() -> None:
    """CPU seconds, which other work on the machine changes little."""

    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def seconds() -> float:
        before = children()
        subprocess.run([sys.executable, "-m", "wingspan.cli.main", "--help"], capture_output=True, check=True)
        return children() - before

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("options", [(), ("--dispatcher", "flat", "-b", "32"), ("--longest-step-ms", "50")])
def test_a_plan_of_its_own_file_repeats_it(wingspan, tmp_path, options):
    out = tmp_path / "best.json"
    first = wingspan("plan", "deepseek-v3", "--gpus", "64", *options, "--out", str(out), "--csv")
    assert first.code == 0, first.err
    again = wingspan("plan", str(out), "--csv")
    assert again.out == first.out
    other = wingspan("plan", str(out), "--csv", "-b", "16")
    assert other.out != first.out
