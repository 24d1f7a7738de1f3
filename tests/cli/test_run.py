"""`wingspan run`: what it prints, and how it refuses."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter

import pytest

from tests.cli.command import TINY
from tests.report.test_perfetto import check_trace
from tests.runtime.checkpoints import configurations, write


def test_json_holds_outputs_in_prompt_order_and_the_report(wingspan, tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("import os\n\nclass A:\n")
    done = wingspan(
        "run", TINY, "--ranks", "4", "--experts-per-rank", "2", "--ranks-per-node", "2", "--dtype", "float32",
        "--prompt", "def f(", "--prompts-file", str(lines), "--prompt-ids", "35,32", "--max-new-tokens", "5",
        "--check", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [o["prompt"] for o in result["outputs"]] == ["def f(", "import os", "class A:", "# "]
    assert [o["home_rank"] for o in result["outputs"]] == [0, 1, 2, 3]
    assert result["outputs"][3]["prompt_ids"] == [35, 32]
    assert all(len(o["token_ids"]) == 5 for o in result["outputs"])
    assert result["check"]["passed"]
    assert result["check"]["tokens_equal"]
    assert result["check"]["max_logit_difference"] < 1e-4
    report = result["report"]
    assert (report["ranks"], report["ranks_per_node"], report["experts_per_rank"]) == (4, 2, 2)
    assert sum(report["sent_across_nodes_bytes"]) > 0
    assert sum(report["sent_within_node_bytes"]) > 0
    assert sum(report["sent_across_nodes_bytes"]) == sum(report["received_across_nodes_bytes"])


def test_summary_names_every_operation_and_the_check(wingspan):
    done = wingspan(
        "run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "import ", "--max-new-tokens", "3",
        "--check",
    )  # fmt: skip
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    for word in ("attn", "gate", "disp", "expert", "comb", "wait", "peak mem", "in node"):
        assert word in text
    assert "tokens per expert, max/mean per layer" in text
    assert "check against the single-process reference: equal" in text
    assert "first token" in text


def test_min_p_leaves_out_what_is_less_likely(wingspan):
    def tokens(*options: str) -> list[int]:
        done = wingspan(
            "run", TINY, "--experts-per-rank", "8", "--prompt", "def main():", "--max-new-tokens", "8",
            *options, "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        return json.loads(done.out)["outputs"][0]["token_ids"]

    hot = ("--temperature", "3")
    assert tokens(*hot, "--min-p", "1") == tokens() != tokens(*hot), (
        "only the likeliest is as likely as itself"
    )


def test_prompts_come_from_standard_input(wingspan, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("import re\nfor x in\n"))
    done = wingspan("run", TINY, "--experts-per-rank", "8", "--max-new-tokens", "2", "--json")
    assert done.code == 0, done.err
    assert [o["prompt"] for o in json.loads(done.out)["outputs"]] == ["import re", "for x in"]


@pytest.mark.parametrize("schedule", ["sequential", "chunks:2", "two-batch"])
def test_a_trace_has_slices_that_nest_and_every_byte_with_an_arrow(wingspan, tmp_path, schedule):
    trace = tmp_path / "trace.json"
    done = wingspan(
        "run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "a", "--prompt", "b", "--prompt", "cd",
        "--prompt", "ef", "--max-new-tokens", "3", "--schedule", schedule, "--trace", str(trace),
    )  # fmt: skip
    assert done.code == 0, done.err
    events = json.loads(trace.read_text())["traceEvents"]
    check_trace(events)
    slices = [e for e in events if e["ph"] == "X"]
    names = Counter(e["name"] for e in slices if e["pid"] == 1)
    assert (names["prefill"], names["prefill step"], names["decode"], names["decode step"]) == (1, 1, 1, 2)
    assert ("micro-batch 1" in names) == (schedule == "two-batch")
    assert {e["args"]["layer"] for e in slices if e["name"] == "expert"} == set(range(3, 10))
    transfers = [e for e in slices if e["name"] in ("dispatch", "combine")]
    sent = {rank: sum(e["args"]["sent_bytes"] for e in transfers if e["pid"] == rank) for rank in (0, 1)}
    received = {
        rank: sum(e["args"]["received_bytes"] for e in transfers if e["pid"] == rank) for rank in (0, 1)
    }
    assert (sent[0], sent[1]) == (received[1], received[0])
    arrows = Counter(e["pid"] for e in events if e["ph"] == "s")
    assert arrows == Counter(e["pid"] for e in transfers if e["args"]["sent_bytes"])


def test_the_page_is_of_the_measured_steps_with_balancing(wingspan, tmp_path):
    page = tmp_path / "run.html"
    done = wingspan(
        "run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "a", "--prompt", "b", "--max-new-tokens",
        "12", "--rebalance", "every 4", "--html", str(page),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"page: {page} (open in a browser)" in " ".join(done.out.split())
    text = page.read_text()
    for words in ("One decode step on 2 ranks, measured", "Drawn is decode step", "Every decode step", "The prefill",
                  "Live balancing", '"name": "wait"'):  # fmt: skip
        assert words in text, words
    assert ">0 tokens/s" not in text
    assert "NaN" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("cluster", ["h100-sxm", "seed-ideal"])
def test_overlap_auto_predicts_and_says_what_it_chose(wingspan, cluster):
    done = wingspan(
        "run", TINY, "--ranks", "4", "--experts-per-rank", "2", "--ranks-per-node", "2", "--schedule", "auto",
        "--cluster", cluster, "--prompt", "a", "--prompt", "b", "--max-new-tokens", "3",
    )  # fmt: skip
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "by prediction: prefill: " in text
    # A step of single tokens is too small for chunks or micro-batches to pay.
    assert "decode: sequential" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["seed"], "wingspan create seed"),
        ([TINY, "--prompt", "a", "--ranks", "4", "--experts-per-rank", "1"], "--ranks 8 or --experts-per-rank 2"),
        ([TINY, "--prompt", "a", "--ranks", "0"], "--ranks 0"),
        ([TINY, "--prompt", "a", "--experts-per-rank", "0"], "--experts-per-rank 0"),
        ([TINY, "--prompt", "a", "--ranks", "8", "--ranks-per-node", "3"], "--ranks-per-node 3"),
        ([TINY, "--ranks", "8", "--prompt-ids", "5,x"], "--prompt-ids '5,x'"),
        ([TINY, "--ranks", "8", "--prompt-ids", "5,999"], "id 999 is outside the vocabulary"),
        ([TINY, "--ranks", "8", "--prompts-file", "none.txt"], "none.txt: no such file"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--max-new-tokens", "4000"], "exceeds the model's context of 2048"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--top-p", "1.5"], "--top-p 1.5"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--top-k", "5"], "--top-k 5: does nothing here: at --temperature 0"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--schedule", "auto"], "--schedule auto: predicts by a cluster file"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--schedule", "chunks:0"], "chunks:0: use"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--transport", "mpi"], "--transport mpi: start the ranks by MPI"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--dtype", "int3"], "--dtype int3"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--device", "tpu"], "--device tpu"),
        ([TINY, "--ranks", "8", "--prompt", "a", "--trace", "no/such/t.json"], "no/such does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(wingspan, arguments, named):
    done = wingspan("run", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("wingspan: ")
    assert named in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_model_without_a_tokenizer_wants_ids(wingspan, tmp_path):
    folder = write(configurations()["olmoe"], tmp_path / "olmoe")
    refused = wingspan("run", str(folder), "--ranks", "6", "--prompt", "a")
    assert refused.code == 2
    assert "--prompt-ids" in refused.err
    done = wingspan(
        "run", str(folder), "--ranks", "6", "--prompt-ids", "5,9,17", "--max-new-tokens", "2", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["outputs"][0]["text"] is None


def test_a_damaged_checkpoint_fails_on_every_rank_alike_with_one_line(wingspan, tmp_path):
    folder = write(configurations()["olmoe"], tmp_path / "olmoe")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = wingspan("run", str(folder), "--ranks", "6", "--prompt-ids", "5")
    assert done.code == 2
    assert "damaged or truncated" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_model_without_experts_is_refused(wingspan, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        )
    )
    done = wingspan("run", str(tmp_path), "--ranks", "2", "--prompt-ids", "5")
    assert done.code == 2
    assert "'llama' has no experts" in done.err


def test_many_ranks_on_few_cores_are_said_before_they_start(wingspan, monkeypatch):
    run = ("run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt", "a", "--max-new-tokens", "1")
    assert "share" not in wingspan(*run).err
    monkeypatch.setattr("wingspan.cli.run_view.usable_cores", lambda: 0)
    assert "wingspan: 2 ranks share 0 cores" in wingspan(*run).err
    assert wingspan(*run, "--json").err == ""
