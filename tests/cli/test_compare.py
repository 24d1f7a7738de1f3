"""`wingspan compare`: one deployment, predicted and run on real ranks with paced compute."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import TINY
from tests.report.test_perfetto import check_trace
from wingspan.runtime.launch.group import Group
from wingspan.runtime.ranks import capacity

CONFIG = {
    "model_type": "wingspan_moe", "vocab_size": 1000, "hidden_size": 256, "num_hidden_layers": 3,
    "first_k_dense_replace": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 512, "moe_intermediate_size": 512, "num_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "gated_experts": True, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def saved(wingspan, tmp_path):
    """Writes a deployment file with these options of `simulate`."""

    def save(*options: str) -> Path:
        config, out = tmp_path / "model.json", tmp_path / "deployment.json"
        config.write_text(json.dumps(CONFIG))
        done = wingspan(
            "simulate", str(config), "--ranks", "4", "--phase", "prefill", "--tokens-per-gpu", "64", "--context", "32",
            "--cluster", "seed-ideal", "--out", str(out), *options,
        )  # fmt: skip
        assert done.code == 0, done.err
        return out

    return save


@pytest.mark.parametrize("schedule", [["--schedule", "sequential"], ["--schedule", "two-batch"]])
@pytest.mark.parametrize("dispatcher", ["flat", "hierarchical"])
def test_bytes_and_paced_compute_are_as_predicted(wingspan, saved, schedule, dispatcher):
    deployment = saved(*schedule, "--dispatcher", dispatcher, "--routing", "log-normal:0.5")
    done = wingspan(
        "compare", str(deployment), "--ranks-per-node", "2", "--time-scale", "2000", "--steps", "1", "--json"
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    predicted, measured = result["predicted"], result["measured"]
    assert (measured["source"], measured["schedule"]) == ("paced", predicted["schedule"])
    assert measured["load_tokens"] == predicted["load_tokens"]
    assert sum(measured["sent_across_nodes_bytes"]) == pytest.approx(
        sum(predicted["sent_across_nodes_bytes"]), rel=0.001
    )
    table = result["compared"]["time of the mean rank"]
    step = table.pop("step")
    beside = [name for name in table if "exposed" in name or "hidden" in name]
    for side in ("predicted", "measured"):
        parts = sum(figures[side] or 0 for name, figures in table.items() if name not in beside)
        assert parts == pytest.approx(step[side], rel=1e-3)
    for operation in ("attention", "expert", "shared_expert", "dense"):
        # A sleep lasts at least as long as it was told, and the prediction is what it was told.
        total = sum(measured["operation_seconds"][operation])
        assert total >= 0.99 * sum(predicted["operation_seconds"][operation])


def test_the_table_both_traces_and_the_page(wingspan, saved, tmp_path):
    done = wingspan(
        "compare", str(saved()), "--trace", str(tmp_path / "step"), "--html", str(tmp_path / "c.html"), "--steps", "2"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "compute is paced" in " ".join(done.out.split())
    for kind, steps in (("predicted", 1), ("measured", 2)):
        events = json.loads((tmp_path / f"step-{kind}.json").read_text())["traceEvents"]
        check_trace(events)
        assert {e["pid"] for e in events} == {0, 1, 2, 3}
        assert sum(e["name"] == "prefill step" and e["pid"] == 0 for e in events) == steps
        assert {"dispatch", "attention", "wait"} <= {e["name"] for e in events}
    page = (tmp_path / "c.html").read_text()
    for words in (
        "One prefill step on 4 ranks, predicted and paced",
        "Drawn is prefill step",
        "compute, measured",
    ):
        assert words in page, words


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--time-scale", "0"], "--time-scale 0"),
        (["--cluster", "none.yaml"], "none.yaml: neither a cluster file nor a preset"),
        (["--transport", "pigeon"], "--transport pigeon"),
        (["--ranks-per-node", "3"], "--ranks-per-node 3"),
        (["--trace", "no/such/t"], "no/such/t-predicted.json: the folder no/such does not exist; create it"),
    ],
)
def test_bad_options_are_one_line(wingspan, saved, options, named):
    done = wingspan("compare", str(saved()), *options)
    assert (done.code, done.out) == (2, "")
    assert named in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_real_compute_beside_its_prediction_on_this_machine(wingspan, tmp_path, phase):
    out = str(tmp_path / "d.json")
    planned = wingspan(
        "simulate", TINY, "--ranks", "4", "--experts-per-rank", "2", "--phase", phase, "-b", "16", "--context", "16",
        "--dispatcher", "deduplicated", "--schedule", "chunks:2", "--out", out,
    )  # fmt: skip
    assert planned.code == 0, planned.err
    done = wingspan("compare", out, "--compute", "real", "--ranks-per-node", "2", "--steps", "2", "--json")
    assert done.code == 0, done.err
    predicted, measured = (json.loads(done.out)[kind] for kind in ("predicted", "measured"))
    assert (predicted["source"], measured["source"]) == ("predicted", "measured")
    for figure in ("phase", "ranks", "ranks_per_node", "experts_per_rank", "schedule", "tokens"):
        assert predicted[figure] == measured[figure], figure
    assert measured["tokens"] == 64
    for figure in ("sent_across_nodes_bytes", "sent_within_node_bytes"):
        assert sum(predicted[figure]) == pytest.approx(sum(measured[figure]), rel=1e-3)
    # Both sides' buffers are of this phase alone, and what a process holds was measured, not a share of the memory.
    held = {kind: report["memory_bytes"] for kind, report in (("p", predicted), ("m", measured))}
    assert sum(held["m"]["buffers"]) < 4 * sum(held["p"]["buffers"])
    assert sum(held["m"]["other"]) == pytest.approx(sum(held["p"]["other"]), rel=0.5)
    for layer, counted in zip(predicted["load_tokens"], measured["load_tokens"], strict=True):
        assert layer == pytest.approx(counted)


def test_options_of_the_other_way_to_compute_are_refused(wingspan, saved):
    path = str(saved())
    for options, words in (
        (["--compute", "real", "--time-scale", "2"], "real compute takes as long as it takes"),
        (["--checkpoint", TINY], "paced compute has no weights"),
        (["--compute", "real"], "--checkpoint FOLDER"),
        (["--compute", "none"], "--compute none: use paced or real"),
    ):
        done = wingspan("compare", path, *options)
        assert (done.code, done.out) == (2, "")
        assert words in done.err


def test_attention_over_several_ranks_is_refused(wingspan, saved):
    done = wingspan("compare", str(saved("--attention-ranks", "2")))
    assert done.code == 2
    assert "attention_ranks 2" in done.err


def test_paced_rows_travel_in_the_deployments_format(wingspan, saved):
    done = wingspan(
        "compare",
        str(saved("--weights", "fp8", "--cluster", "h100-sxm")),
        "--ranks-per-node",
        "2",
        "--steps",
        "1",
        "--json",
    )
    assert done.code == 0, done.err
    predicted, measured = (json.loads(done.out)[kind] for kind in ("predicted", "measured"))
    for figure in ("sent_across_nodes_bytes", "sent_within_node_bytes"):
        assert sum(predicted[figure]) == pytest.approx(sum(measured[figure]), rel=0.001)


def test_ranks_whose_rows_have_no_room_are_refused_before_one_starts(wingspan, saved, monkeypatch):
    """Free memory is faked: 4 ranks fit beside it, the rows that each would hold do not."""
    deployment = saved("--tokens-per-gpu", "20000")
    monkeypatch.setattr(capacity, "free_memory_bytes", lambda: 200_000_000)
    monkeypatch.setattr(Group, "run", lambda *_: pytest.fail("ranks were started"))
    done = wingspan("compare", str(deployment))
    assert done.code == 2
    assert re.search(
        r"4 ranks need 0\.\d\d GB of memory \(0\.\d\d\d GB each\), and 0\.20 GB are free here; take fewer ranks or "
        "tokens per GPU",
        done.err.replace("\n", " "),
    )
