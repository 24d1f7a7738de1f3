"""Every option of every command acts or is refused: none is accepted without a word.

The planner's commands are deterministic, so each option is given beside a command line, and what is printed or written
must change. Options of commands that run ranks are tested where those are; here they must appear there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import REPOSITORY, Command
from tests.cli.tree import COMMANDS
from tests.interop.silicon.test_judge import write_products
from tests.simulate.published.table import row as published_row
from tests.simulate.published.table import write as write_published
from wingspan.cli.option_rules import RULES

TINY = "models/tiny"
SWEEP = ("sweep", TINY, "--ranks", "4,8")
SERVING = ("simulate-serving", TINY, "--ranks", "8", "--num-requests", "40", "--prompt-tokens", "100",
           "--output-tokens", "8", "--max-sequences", "8", "--step-tokens", "128", "--rate", "50")  # fmt: skip
PLACE = ("place", "TRACE", "--model", TINY, "--ranks-per-node", "2")
FILE = "FILE"
"""Stands for a file in a new folder; that it is written is the effect."""
TRACE_FILE = "written.parquet"
"""The same, where it is a routing trace, whose name says so."""

ACTS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "plan": (
        ("plan", TINY, "--gpus", "8", "-b", "16", "--json"),
        {
            "--gpus": ("--gpus", "16"), "--cluster": ("--cluster", "h800"), "--phase": ("--phase", "prefill"),
            "--tokens-per-gpu": ("-b", "7"), "--total-sequences": ("--total-sequences", "3"),
            "--context": ("--context", "512"), "--tokens-spread": ("--tokens-spread", "0.5"),
            "--context-spread": ("--context-spread", "1"), "--routing": ("--routing", "log-normal:1"),
            "--dispatcher": ("--dispatcher", "hierarchical"), "--expert-tp": ("--expert-tp", "2"),
            "--precision": ("--precision", "fp8"), "--from-weights": ("--from-weights",), "--seed": ("--seed", "5"),
            "--engine": ("--engine", "sglang"), "--shared-in-slots": ("--shared-in-slots",),
            "--mtp": ("--mtp", "1"), "--acceptance": ("--acceptance", "0.5"),
            "--longest-step-ms": ("--longest-step-ms", "0.6"), "--price": ("--price", "2"),
            "--redundant": ("--redundant", "8"), "--experts-per-rank": ("--experts-per-rank", "4"),
            "--placement": ("--placement", "random"), "--prompt-tokens": ("--prompt-tokens", "9"),
            "--output-tokens": ("--output-tokens", "9"),
            "--ttft": ("--ttft", "1"), "--tpot": ("--tpot", "1"), "--out": ("--out", FILE), "--html": ("--html", FILE),
            "--json": ("--csv",), "--csv": ("--csv",),
        },
    ),
    "simulate": (
        ("simulate", TINY, "--ranks", "8", "--json"),
        {
            "--cluster": ("--cluster", "h800"), "--ranks": ("--ranks", "4"),
            "--experts-per-rank": ("--experts-per-rank", "2"), "--placement": ("--placement", "random"),
            "--phase": ("--phase", "prefill"), "--tokens-per-gpu": ("-b", "7"), "--context": ("--context", "512"),
            "--total-sequences": ("--total-sequences", "3"), "--tokens-spread": ("--tokens-spread", "0.5"),
            "--context-spread": ("--context-spread", "1"), "--routing": ("--routing", "log-normal:1"),
            "--expected-loads": ("--expected-loads",), "--schedule": ("--schedule", "chunks:3"),
            "--dispatcher": ("--dispatcher", "hierarchical"),
            "--attention-ranks": ("--attention-ranks", "2"), "--expert-tp": ("--expert-tp", "2"),
            "--precision": ("--precision", "fp8"), "--from-weights": ("--from-weights",), "--seed": ("--seed", "5"),
            "--engine": ("--engine", "sglang"), "--shared-in-slots": ("--shared-in-slots",),
            "--mtp": ("--mtp", "1"), "--acceptance": ("--acceptance", "0.5"),
            "--out": ("--out", FILE), "--trace": ("--trace", FILE), "--html": ("--html", FILE),
            "--json": ("--csv",), "--csv": ("--csv",),
        },
    ),
    "sweep": (
        (*SWEEP, "--json"),
        {
            "--cluster": ("--cluster", "h800"), "--ranks": ("--ranks", "4"),
            "--experts-per-rank": ("--experts-per-rank", "2"), "--tokens-per-gpu": ("-b", "7"),
            "--total-sequences": ("--total-sequences", "3"),
            "--context": ("--context", "512"), "--routing": ("--routing", "log-normal:1"),
            "--bandwidth": ("--bandwidth", "7"), "--schedule": ("--schedule", "chunks:3"),
            "--phase": ("--phase", "prefill"), "--attention-ranks": ("--attention-ranks", "2"),
            "--expert-tp": ("--expert-tp", "2"),
            "--scale-experts": ("--scale-experts",), "--precision": ("--precision", "fp8"),
            "--mtp": ("--mtp", "1"), "--acceptance": ("--acceptance", "0.5"), "--seed": ("--seed", "5"),
            "--engine": ("--engine", "sglang"),
            "--json": ("--csv",), "--csv": ("--csv",), "--html": ("--html", FILE),
            "--longest-step-ms": ("--longest-step-ms", "0.6"), "--price": ("--price", "2"),
        },
    ),
    "simulate-serving": (
        (*SERVING, "--json"),
        {
            "--cluster": ("--cluster", "h800"), "--ranks": ("--ranks", "4"),
            "--separate-prefill": ("--separate-prefill", "4"),
            "--rate": ("--rate", "60"), "--requests": ("--requests", "REQUESTS"),
            "--num-requests": ("--num-requests", "50"), "--prompt-tokens": ("--prompt-tokens", "120"),
            "--output-tokens": ("--output-tokens", "9"), "--length-spread": ("--length-spread", "0"),
            "--max-sequences": ("--max-sequences", "4"), "--step-tokens": ("--step-tokens", "64"),
            "--ttft-p99": ("--ttft-p99", "1"), "--tpot-p99": ("--tpot-p99", "1"),
            "--find-limit": ("--find-limit", "--tpot-p99", "0.05"), "--attention-ranks": ("--attention-ranks", "2"),
            "--schedule": ("--schedule", "chunks:3"), "--routing": ("--routing", "log-normal:1"),
            "--precision": ("--precision", "fp8"), "--seed": ("--seed", "5"), "--engine": ("--engine", "sglang"),
            "--mtp": ("--mtp", "1"), "--acceptance": ("--acceptance", "0.5"),
            "--json": ("--csv",), "--csv": ("--csv",), "--html": ("--html", FILE), "--price": ("--price", "2.5"),
            "--prefix-caching": ("--prefix-caching", "--requests", "tests/cases/requests/mooncake_head.jsonl"),
        },
    ),
    "place": (
        (*PLACE, "--json"),
        {
            "--synthetic": ("--synthetic", "log-normal"), "--model": ("--model", "mixtral-8x7b"),
            "--from": ("--from", "sglang"), "--redundant": ("--ranks", "4", "--redundant", "8"),
            "--to": ("--to", "vllm", "--out", FILE), "--html": ("--html", FILE),
            "--cluster": ("--cluster", "seed-ideal"), "--ranks": ("--ranks", "4", "--experts-per-rank", "2"),
            "--spare-ranks": ("--spare-ranks", "2"), "--experts-per-rank": ("--experts-per-rank", "2"),
            "--ranks-per-node": ("--ranks-per-node", "4"), "--dispatcher": ("--dispatcher", "flat"),
            "--schedule": ("--schedule", "chunks:3"), "--phase": ("--phase", "prefill"),
            "--context": ("--context", "4096"), "--attention-ranks": ("--attention-ranks", "2"),
            "--precision": ("--precision", "fp8"), "--request-routing": ("--request-routing",),
            "--current": ("--current", "PLACEMENT"),
            "--tokens-per-gpu": ("-b", "7"), "--horizon-steps": ("--horizon-steps", "5"),
            "--expert-memory-gb": ("--expert-memory-gb", "1e-6"), "--placement": ("--placement", "linear"),
            "--out": ("--out", FILE), "--seed": ("--seed", "5"), "--json": (),
        },
    ),
    "synthesize": (
        ("synthesize", "communities", "--layers", "2", "--experts", "8", "--experts-per-token", "2", "--tokens", "200",
         "--ranks", "4", "--request-tokens", "10", "--out", TRACE_FILE),
        {
            "--layers": ("--layers", "3"), "--experts": ("--experts", "16"),
            "--experts-per-token": ("--experts-per-token", "1"),
            "--tokens": ("--tokens", "100"), "--ranks": ("--ranks", "2"), "--request-tokens": ("--request-tokens", "5"),
            "--seed": ("--seed", "5"),
            "--groups": ("--groups", "2"), "--noise": ("--noise", "0.5"), "--hot-share": ("--hot-share", "0.5"),
            "--turns": ("--turns", "2"), "--every": ("--every", "2"), "--out": ("--out", TRACE_FILE),
        },
    ),
    "export": (
        ("export", "PLACEMENT", "--to", "tensorrt-llm", "--moe-layers", "1-7",
         "--ranks-per-node", "4", "--out", FILE, "--fill-empty"),
        {
            "--to": ("--to", "vllm"), "--moe-layers": ("--moe-layers", "2-8"),
            "--ranks-per-node": ("--ranks-per-node", "2"), "--hidden-layers": ("--hidden-layers", "10"),
            "--fill-empty": (), "--out": ("--out", FILE),
        },
    ),
    "import": (
        ("import", "LOCATION", "--from", "sglang", "--ranks", "4", "--moe-layers", "1-2", "--out", FILE),
        {
            "--from": ("--from", "vllm"), "--ranks": ("--ranks", "2"), "--moe-layers": ("--moe-layers", "0-2"),
            "--experts": ("--experts", "9"), "--hidden-layers": ("--hidden-layers", "5"),
            "--ranks-per-node": ("--ranks-per-node", "2"), "--model-class": ("--model-class", "Other"),
            "--out": ("--out", FILE),
        },
    ),
    "routing": (
        ("routing", "TRACE", "--json"),
        {
            "--ranks-per-node": ("--ranks-per-node", "4"), "--ranks": ("--ranks", "4"),
            "--placement": ("--placement", "PLACEMENT"), "--windows": ("--windows", "3"), "--pairs": ("--pairs", "2"),
            "--html": ("--html", FILE), "--json": (),
        },
    ),
    "presets": (("presets",), {"--json": ("--json",)}),
    "atlas": (("atlas", "cloudmatrix-ep320-decode"), {"--json": ("--json",), "--html": ("--html", FILE)}),
    "models": (("models",), {"--json": ("--json",)}),
    "inspect": (
        ("inspect", "models/tiny"),
        {
            "--gated": ("--gated",), "--from-weights": ("--from-weights",), "--runtime": ("--runtime",),
            "--json": ("--json",),
        },
    ),
    "create": (("create", TINY, FILE), {"--seed": ("--seed", "5")}),
    "doctor": (("doctor",), {"--json": ("--json",)}),
    "diff": (("diff", "DEPLOYMENT", "DEPLOYMENT"), {"--json": ("--json",)}),
    "validate": (
        ("validate", "--data", "MEASURED"),
        {
            "--data": ("--data", "EMPTY"), "--headlines": ("--headlines",), "--silicon": ("--silicon",),
            "--json": ("--json",), "--end-to-end": ("--end-to-end", "PUBLISHED"),
        },
    ),
}  # fmt: skip

ELSEWHERE = ("claims", "run", "serve", "record", "compare", "calibrate",
             "bench serve", "testbed up", "testbed run", "testbed down", "testbed status")  # fmt: skip
"""Commands that run ranks, or take long."""


def _options(command: str) -> list[str]:
    params = COMMANDS[command].params
    return [p.opts[0] for p in params if p.param_type_name == "option" and p.name != "help"]


def test_every_command_and_option_is_here():
    assert sorted(COMMANDS) == sorted([*ACTS, *ELSEWHERE])
    for command, (_, options) in ACTS.items():
        assert sorted(options) == sorted(_options(command)), command


def test_options_of_other_commands_are_tested_where_they_act():
    texts = "".join(
        file.read_text() for file in (REPOSITORY / "tests").rglob("*.py") if file != Path(__file__)
    )
    missing = [
        f"{command} {option}"
        for command in ELSEWHERE
        for option in _options(command)
        if not any(f"{quote}{option}{end}" in texts for quote in "\"' " for end in "\"' =")
    ]
    assert missing == []


def test_rules_name_options_that_there_are():
    for command, rules in RULES.items():
        names = {param.name for param in COMMANDS[command].params}
        assert {rule.option for rule in rules} <= names


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Inputs that options need."""
    from wingspan.deployment import save_deployment
    from wingspan.describe import Description, deployment_of
    from wingspan.placement.simple import round_robin
    from wingspan.routing.synthetic import TraceShape, generate
    from wingspan.routing.trace_file import write_trace
    from wingspan.routing.workloads import workload
    from wingspan.specs.stored_placement import StoredPlacement

    folder = tmp_path_factory.mktemp("given")
    shape = TraceShape(2000, 7, 8, 2, 8, 16)
    write_trace(folder / "t.parquet", generate(shape, workload("communities", shape, 0), 0), "a test")
    (folder / "p.json").write_text(json.dumps(StoredPlacement(round_robin(7, 8, 8, 2)).to_dict()))
    (folder / "r.csv").write_text("arrival_seconds,prompt_tokens,output_tokens\n0,9,3\n1,20,4\n2,30,3\n")
    save_deployment(deployment_of(Description(str(REPOSITORY / TINY), ranks=8)), folder / "d.json")
    for name in ("measured", "empty"):
        (folder / name).mkdir()
    write_products(folder / "measured", factor=1.0)
    write_published(folder / "published.csv", published_row("A"))
    rows = [list(range(8)), [1, 0, *range(2, 8)], list(range(8))]
    (folder / "location.json").write_text(json.dumps({"physical_to_logical_map": rows}))
    return {
        "LOCATION": str(folder / "location.json"),
        "TRACE": str(folder / "t.parquet"),
        "PLACEMENT": str(folder / "p.json"),
        "DEPLOYMENT": str(folder / "d.json"),
        "MEASURED": str(folder / "measured"),
        "EMPTY": str(folder / "empty"),
        "PUBLISHED": str(folder / "published.csv"),
        "REQUESTS": str(folder / "r.csv"),
    }


def _outcome(wingspan: Command, arguments: tuple[str, ...], files: dict[str, str], folder: Path) -> Any:
    """Exit code, what was printed, and what was written."""
    folder.mkdir()
    placed = [files.get(a, a) for a in arguments]
    done = wingspan(
        *(str(folder / f"{n}{a}") if a in (FILE, TRACE_FILE) else a for n, a in enumerate(placed))
    )
    assert done.code in (0, 2), done.err
    if done.code == 2:
        assert done.err.count("\n") == 1
    written = sorted(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    # How fast it was says nothing of what it did.
    out = re.sub(r"[\d,]+ tokens/s$", "", done.out.replace(str(folder), ""), flags=re.MULTILINE)
    return done.code, out, written


@pytest.mark.parametrize("command", ACTS)
def test_every_option_changes_something_or_is_refused(
    wingspan: Command, tmp_path: Path, files: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(REPOSITORY)
    base, options = ACTS[command]
    before = _outcome(wingspan, base, files, tmp_path / "base")
    assert before[0] == 0
    idle = []
    for number, (option, given) in enumerate(options.items()):
        arguments = (*base, *given)
        if not given:
            arguments = tuple(a for a in base if a != option)
        if "--csv" in given:
            arguments = tuple(a for a in base if a != "--json") + given
        if _outcome(wingspan, arguments, files, tmp_path / str(number)) == before:
            idle.append(option)
    assert idle == []
