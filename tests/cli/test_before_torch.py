"""Wrong values of the commands that run a model are refused before torch is imported: here it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import TINY
from tests.cli.forking import Case, Outcome, outcomes
from tests.cli.without_torch import run_without_torch

RUN = ["run", TINY, "--ranks", "8", "--prompt", "a"]
RECORD = ["record", TINY, "--ranks", "8", "--text", f"{TINY}/config.json"]

CASES: list[tuple[list[str], str]] = [
    (["run", "nowhere"], "nowhere: no such folder"),
    (["run", "seed-small", "--prompt", "a"], "wingspan create seed-small"),
    (["run", "text", "--prompt", "a"], "text: a configuration without weights"),
    (["run", "empty", "--prompt", "a"], "empty: no config.json"),
    (["run", "broken", "--prompt", "a"], "not JSON"),
    (["run", "list", "--prompt", "a"], "expected an object, found list"),
    (["run", "nameless", "--prompt", "a"], "no model_type"),
    ([*RUN, "--dtype", "int8"], "--dtype int8: use one of auto, float32, bfloat16"),
    ([*RUN, "--device", "tpu"], "--device tpu: use cpu or cuda"),
    ([*RUN, "--transport", "pigeon"], "--transport pigeon: use one of auto, torch, shm, mpi"),
    ([*RUN, "--transport", "mpi"], "--transport mpi: start the ranks by MPI"),
    ([*RUN, "--dispatcher", "tree"], "--dispatcher tree: use one of auto, flat, deduplicated, hierarchical"),
    ([*RUN, "--row-precision", "fp4"], "--row-precision fp4: use one of same, bfloat16, float8"),
    ([*RUN, "--schedule", "chunks:0"], "chunks:0: use sequential"),
    ([*RUN, "--schedule", "chunks:100000000000"], "chunks:100000000000: use"),
    ([*RUN, "--schedule", "three-batch"], "three-batch: use"),
    ([*RUN, "--schedule", "auto"], "--schedule auto: predicts by a cluster file"),
    ([*RUN, "--schedule", "auto", "--cluster", "none"], "none: neither a cluster file nor a preset"),
    ([*RUN, "--rebalance", "sometimes"], "--rebalance 'sometimes'"),
    (["run", TINY, "--experts-per-rank", "8", "--prompt", "a", "--rebalance", "auto"], "--ranks 2 or more"),
    ([*RUN, "--max-new-tokens", "0"], "--max-new-tokens"),
    ([*RUN, "--max-new-tokens", "4000"], "exceeds the model's context of 2048"),
    ([*RUN, "--temperature", "-1"], "--temperature"),
    ([*RUN, "--temperature", "nan"], "'--temperature'"),
    ([*RUN, "--temperature", "inf"], "--temperature inf"),
    ([*RUN, "--top-k", "0", "--temperature", "1"], "--top-k"),
    ([*RUN, "--top-k", "5"], "--top-k 5: does nothing here"),
    ([*RUN, "--top-p", "1.5"], "--top-p 1.5"),
    ([*RUN, "--top-p", "nan", "--temperature", "1"], "--top-p nan"),
    ([*RUN, "--min-p", "1.5", "--temperature", "1"], "--min-p 1.5"),
    (["run", TINY, "--ranks", "0", "--prompt", "a"], "--ranks 0: use 1 or more"),
    (
        ["run", TINY, "--ranks", "4", "--experts-per-rank", "1", "--prompt", "a"],
        "--ranks 8 or --experts-per-rank 2",
    ),
    ([*RUN, "--experts-per-rank", "0"], "--experts-per-rank 0"),
    ([*RUN, "--ranks-per-node", "3"], "--ranks-per-node 3"),
    (["run", TINY, "--ranks", "8", "--prompts-file", "none.txt"], "none.txt: no such file"),
    (["run", TINY, "--ranks", "8", "--prompts-file", "binary"], "cannot be read as text"),
    (["run", TINY, "--ranks", "8", "--prompts-file", "empty"], "cannot be read as text"),
    (["run", TINY, "--ranks", "8", "--prompt-ids", "5,x"], "--prompt-ids '5,x'"),
    (["run", TINY, "--ranks", "8", "--prompt-ids", ","], "prompt 0 is empty"),
    (["run", TINY, "--ranks", "8", "--prompt-ids", "5,999"], "id 999 is outside the vocabulary 0.."),
    ([*RUN, "--prompt-ids", "5,-1"], "prompt 1: id -1 is outside the vocabulary 0.."),
    ([*RUN, "--trace", "no/such/t.json"], "the folder no/such does not exist"),
    ([*RUN, "--trace", "empty"], "empty: is a folder"),
    ([*RUN, "--out", "no/r.json"], "the folder no does not exist"),
    ([*RUN, "--out", "same.json", "--trace", "same.json"], "same.json: is named for two outputs"),
    ([*RECORD, "--dtype", "int8"], "--dtype int8"),
    ([*RECORD, "--device", "tpu"], "--device tpu"),
    ([*RECORD, "--request-tokens", "5000"], "use at most 2048"),
    ([*RECORD, "--ranks-per-node", "3"], "--ranks-per-node 3"),
    ([*RECORD, "--experts-per-rank", "0"], "--experts-per-rank"),
    (["record", TINY, "--ranks", "3", "--experts-per-rank", "2", "--text", "text"], "do not fit 3 ranks"),
    ([*RECORD, "--out", "no/t.parquet"], "the folder no does not exist"),
    (["record", TINY], "give --text FILE"),
    (["record", TINY, "--text", "nowhere"], "--text nowhere: no such file"),
    (["record", TINY, "--text", "binary"], "--text binary: cannot be read as UTF-8"),
    (["calibrate", "--device", "tpu"], "--device tpu"),
    (["calibrate", "--transport", "pigeon"], "--transport pigeon"),
    (["calibrate", "--ranks", "3", "--ranks-per-node", "2"], "does not divide 3 ranks"),
    (["calibrate", "--ranks", "0"], "--ranks 0"),
    (["calibrate", "--out", "no/c.yaml"], "the folder no does not exist"),
    (["compare", "nowhere.json"], "nowhere.json: cannot be read"),
    (["compare", "text"], "not JSON"),
    (["compare", "d.json", "--time-scale", "0"], "--time-scale 0"),
    (["compare", "d.json", "--time-scale", "nan"], "--time-scale nan"),
    (["compare", "d.json", "--cluster", "none.yaml"], "none.yaml: neither a cluster file nor a preset"),
    (["compare", "d.json", "--transport", "pigeon"], "--transport pigeon"),
    (["compare", "d.json", "--ranks-per-node", "3"], "--ranks-per-node 3"),
    (["compare", "d.json", "--steps", "0"], "--steps"),
    (["compare", "d.json", "--trace", "no/t"], "the folder no does not exist"),
    (["inspect", "nowhere"], "nowhere: no such folder"),
    (["inspect", "text"], "not JSON"),
    (["inspect", "deepseek-v3", "--gated"], "has no gated_experts"),
    (["create", "nowhere", "out"], "nowhere: no such folder"),
    (["create", "seed-small", "text"], "text"),
    (["create", "seed-small", "list"], "list: holds a model already"),
    (["create", "seed-small", "out", "--seed", "-1"], "--seed"),
    (["create", "seed-small", "out", "--seed", str(2**64)], "--seed"),
]


def _name(value: object) -> str:
    return " ".join(value)[-60:] if isinstance(value, list) else ""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "empty").mkdir()
    (folder / "text").write_text("hello")
    (folder / "binary").write_bytes(b"\xff\x00\xfe")
    for name, config in (("broken", "{"), ("list", "[1]"), ("nameless", "{}")):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
    saved = run_without_torch("simulate", "seed-small", "--ranks", "64", "--out", str(folder / "d.json"))
    assert saved.returncode == 0, saved.stderr
    return {
        json.dumps(o.arguments): o
        for o in outcomes("light", folder, [Case(arguments) for arguments, _ in CASES])
    }


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=_name)
def test_a_wrong_value_is_refused_without_torch(
    ended: dict[str, Outcome], arguments: list[str], words: str
) -> None:
    found = ended[json.dumps(arguments)]
    assert (found.code, found.out) == (2, ""), found
    assert found.err.startswith("wingspan")
    assert found.err.count("\n") == 1
    assert words in found.err
    assert (found.changed, found.left_processes) == ([], 0)
    assert found.seconds < 5


@pytest.mark.parametrize(
    "arguments",
    [
        RUN,
        [*RECORD, "--out", "TRACE"],
        ["compare", "DEPLOYMENT"],
        ["calibrate", "--ranks", "2"],
        ["inspect", "seed", "--runtime"],
        ["create", "seed-small", "OUT"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_torch_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    deployment = tmp_path / "d.json"
    assert (
        run_without_torch("simulate", "seed-small", "--ranks", "8", "--out", str(deployment)).returncode == 0
    )
    paths = {
        "OUT": str(tmp_path / "out"),
        "TRACE": str(tmp_path / "t.parquet"),
        "DEPLOYMENT": str(deployment),
    }
    refused = run_without_torch(*(paths.get(word, word) for word in arguments))
    assert (refused.returncode, refused.stdout, refused.stderr) == (
        2,
        "",
        "wingspan: this needs torch; pip install 'wingspan[runtime]'\n",
    )
    assert list(tmp_path.iterdir()) == [deployment]


def test_a_wrong_name_costs_no_second_of_the_processor(tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    refused = run_without_torch(*RUN, "--dtype", "int8")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert refused.returncode == 2
    assert after.ru_utime - before.ru_utime < 1
