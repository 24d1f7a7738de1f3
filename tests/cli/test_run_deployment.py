"""`wingspan run DEPLOYMENT` and `--placement`: what was planned is what runs."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import TINY
from wingspan.host import usable_cores
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement

LAYERS, EXPERTS = 7, 8
PROMPTS = (
    "--prompt",
    "def main():",
    "--prompt",
    "import os",
    "--max-new-tokens",
    "3",
    "--transport",
    "torch",
)


@pytest.fixture
def saved(wingspan, tmp_path):
    """Writes a deployment of the shipped model on two ranks with these options of `simulate`."""

    def save(*options: str, model: str = TINY, ranks: tuple[str, ...] = ("--ranks", "2")) -> str:
        out = tmp_path / "d.json"
        done = wingspan(
            "simulate", model, *ranks, "--cluster", "h100-sxm", "-b", "1", "--context", "16",
            "--out", str(out), *options,
        )  # fmt: skip
        assert done.code == 0, done.err
        return str(out)

    return save


@pytest.fixture
def ran(wingspan):
    """Runs something and gives its decode report."""

    def run(*arguments: str) -> dict:
        done = wingspan("run", *arguments, *PROMPTS, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)["report"]

    return run


@pytest.fixture
def on_rank_0(tmp_path) -> str:
    """A placement's file: rank 0 holds all experts, rank 1 none."""
    slots_LRS = np.full((LAYERS, 2, EXPERTS), EMPTY)
    slots_LRS[:, 0] = np.arange(EXPERTS)
    stored = StoredPlacement(Placement(slots_LRS, EXPERTS), tuple(range(3, 10)), 10)
    (tmp_path / "p.json").write_text(json.dumps(stored.to_dict()))
    return str(tmp_path / "p.json")


def expert_bytes(report: dict) -> list[int]:
    (found,) = (
        sizes for part, sizes in report["memory_bytes"].items() if part in ("expert_weights", "experts")
    )
    return found


def test_ranks_slots_and_schedule_are_the_deployments_or_as_asked(saved, ran):
    deployment = saved("--schedule", "two-batch")
    found = ran(deployment)
    assert (found["schedule"], found["ranks"], found["experts_per_rank"]) == ("two-batch", 2, 4)
    found = ran(deployment, "--schedule", "chunks:2", "--ranks", "1", "--experts-per-rank", "8")
    assert (found["schedule"], found["ranks"], found["experts_per_rank"]) == ("chunks:2", 1, 8)


def test_a_schedule_that_is_only_predicted_is_refused_by_name(saved, wingspan):
    done = wingspan("run", saved("--schedule", "single-batch"), *PROMPTS)
    assert done.code == 2
    assert "single-batch: needs kernels that hand rows on expert by expert" in done.err


def test_the_dispatcher_is_the_deployments(saved, ran):
    sent = {
        kind: sum(ran(saved("--dispatcher", kind))["sent_within_node_bytes"])
        for kind in ("flat", "deduplicated")
    }
    # Two of eight experts per token, on two ranks: often both are on the other one.
    assert 0 < sent["deduplicated"] < 0.95 * sent["flat"]


def test_the_placement_is_the_files(saved, ran, on_rank_0):
    for arguments in ([saved("--placement", on_rank_0, ranks=())], [TINY, "--placement", on_rank_0]):
        found = ran(*arguments)
        assert (found["ranks"], found["experts_per_rank"]) == (2, EXPERTS)
        assert expert_bytes(found)[0] > 0
        assert expert_bytes(found)[1] == 0


def test_a_strategys_placement_sends_other_rows(ran):
    sent = {
        name: ran(TINY, "--ranks", "2", "--experts-per-rank", "4", "--placement", name)
        for name in ("linear", "round-robin")
    }
    linear, dealt = (found["sent_within_node_bytes"] for found in sent.values())
    assert linear != dealt


def test_the_precision_is_the_deployments(saved, wingspan, ran):
    narrow = ran(saved())
    wide = ran(saved("--weights", "fp32", "--activations", "fp32"), "--row-precision", "same")
    assert expert_bytes(wide) == [2 * size for size in expert_bytes(narrow)]
    refused = wingspan("run", saved("--weights", "fp8"), *PROMPTS)
    assert (refused.code, refused.out) == (2, "")
    assert "fp8 weights: ranks compute in" in refused.err
    assert "--dtype bfloat16" in refused.err
    forced = wingspan("run", saved("--weights", "fp8"), *PROMPTS, "--dtype", "bfloat16", "--json")
    assert forced.code == 0, forced.err
    assert "weights are bf16, not fp8" in forced.err
    rows = sum(json.loads(forced.out)["report"]["sent_within_node_bytes"])
    assert rows < sum(narrow["sent_within_node_bytes"])  # an FP8 deployment sends its rows in FP8


def test_a_deployment_of_a_bare_configuration_wants_a_checkpoint(saved, wingspan, ran, tmp_path):
    config = tmp_path / "config.json"
    shutil.copy(Path(TINY) / "config.json", config)
    deployment = saved(model=str(config))
    refused = wingspan("run", deployment, *PROMPTS)
    assert refused.code == 2
    assert "--checkpoint FOLDER" in refused.err
    assert ran(deployment, "--checkpoint", TINY)["ranks"] == 2


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("checkpoint", "/nowhere", "give another folder as --checkpoint"),
        ("model.hidden", 320, "hidden is 160, and 320 in"),
        ("options.attention_ranks", 5, "attention_ranks 5"),
        ("options.expert_tensor_parallel", 2, "expert_tensor_parallel 2: ranks hold whole experts"),
        ("workload.precision.combine", "fp8", "--row-precision same"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_one_line_before_torch(saved, wingspan, key, value, words):
    path = Path(saved(ranks=("--ranks", "5")) if "attention" in key else saved())
    data = json.loads(path.read_text())
    *inside, last = key.split(".")
    part = data
    for name in inside:
        part = part[name]
    part[last] = value
    path.write_text(json.dumps(data))
    done = wingspan("run", str(path), *PROMPTS)
    assert (done.code, done.out) == (2, ""), done
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranks", "4"], "is for 2 ranks; leave --ranks out"),
        (["--experts-per-rank", "4"], "leave --experts-per-rank out"),
        (["--checkpoint", TINY], "is no deployment; leave it out"),
    ],
)
def test_options_beside_a_placements_file(wingspan, on_rank_0, options, words):
    done = wingspan("run", TINY, "--placement", on_rank_0, *options, *PROMPTS)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_without_ranks_it_takes_this_machines_cores(wingspan):
    done = wingspan("run", TINY, *PROMPTS, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["report"]
    each = -(-EXPERTS // min(EXPERTS, usable_cores()))
    assert (report["ranks"], report["experts_per_rank"]) == (-(-EXPERTS // each), each)
    assert each == 1 or f"{EXPERTS} ranks have one each" in done.err


def test_plan_place_and_run_are_one_chain(wingspan, ran, tmp_path):
    planned, placed = str(tmp_path / "d.json"), str(tmp_path / "placed.json")
    first = wingspan(
        "simulate",
        TINY,
        "--ranks",
        "4",
        "--experts-per-rank",
        "2",
        "-b",
        "64",
        "--context",
        "64",
        "--out",
        planned,
    )
    assert first.code == 0, first.err
    trace = str(Path(TINY) / "routing.parquet")
    done = wingspan("place", trace, "--model", planned, "--out", placed, "--json")
    assert done.code == 0, done.err
    strategies = json.loads(done.out)["strategies"]
    predicted = wingspan("simulate", placed, "--json")
    assert predicted.code == 0, predicted.err
    assert json.loads(predicted.out)["step_seconds"] == pytest.approx(
        strategies["ours"]["step_seconds"], rel=0.02
    )
    assert json.loads(Path(placed).read_text())["checkpoint"]
    assert ran(placed)["ranks"] == 4
    refused = wingspan("place", trace, "--model", placed, "--ranks", "8", "--out", planned)
    assert refused.code == 2
    assert "explicit" in refused.err


def test_without_prompts_it_completes_its_own_and_says_so(saved, wingspan, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    deployment = saved("--routing", "log-normal:1")
    done = wingspan("run", deployment, "--max-new-tokens", "2", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["outputs"]) == 2
    assert "no prompt was given: it completes 2 of its own" in done.err
    assert "plans decode of 1 tokens per GPU in a context of 16, log-normal routing, on h100-sxm" in done.err


def test_an_empty_prompts_file_is_refused(wingspan, tmp_path):
    (tmp_path / "none.txt").write_text("\n")
    done = wingspan("run", TINY, "--prompts-file", str(tmp_path / "none.txt"))
    assert (done.code, done.out) == (2, "")
    assert "nothing to complete" in done.err
