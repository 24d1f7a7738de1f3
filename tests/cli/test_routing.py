"""record, synthesize, routing, export and import, as their user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import TINY
from wingspan.routing.trace_file import TraceFile


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wingspan.routing.synthetic import TraceShape, generate
    from wingspan.routing.trace_file import write_trace
    from wingspan.routing.workloads import workload

    path = tmp_path_factory.mktemp("trace") / "trace.parquet"
    shape = TraceShape(4000, 25, 16, 2, 8)
    write_trace(path, generate(shape, workload("communities", shape, 1), 1), "test")
    return path


def test_record_then_routing(wingspan, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.py").write_text("def main():\n    return 0\n" * 20)
    (tmp_path / "text" / "b.bin").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "t.parquet"
    ended = wingspan(
        "record", TINY, "--text", str(tmp_path / "text"), "--ranks", "2", "--max-tokens", "300",
        "--request-tokens", "64", "--out", str(out), "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    about = json.loads(ended.out)
    assert (about["tokens"], about["layers"], about["experts"], about["top_k"]) == (300, 7, 8, 2)
    file = TraceFile.open(out)
    assert (file.num_tokens, file.num_ranks) == (300, 2)
    assert "recorded from tiny on 1 text files" in file.origin
    shown = wingspan("routing", str(out), "--ranks-per-node", "2,4")
    assert shown.code == 0, shown.err
    for words in ("300 tokens, 7 MoE layers, top-2 of 8 experts", "by MoE layer", "4 ranks a node", "drift"):
        assert words in shown.out


def test_more_text_files_may_follow(wingspan, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("some text")
    out = tmp_path / "t.parquet"
    ended = wingspan(
        "record", TINY, "--text", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--out", str(out)
    )
    assert ended.code == 0, ended.err
    assert "18 tokens in 1 steps" in ended.out


def test_a_node_larger_than_all_ranks_holds_them_all(wingspan, tmp_path):
    text, out = tmp_path / "a.txt", tmp_path / "t.parquet"
    text.write_text("some text")
    done = wingspan("record", TINY, str(text), "--ranks", "2", "--ranks-per-node", "3", "--out", str(out))
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --text FILE"),
        (["--text", "nowhere"], "--text nowhere: no such file"),
        (["--text", __file__, "--out", "no/t.parquet"], "the folder no does not exist"),
        (["--text", __file__, "--request-tokens", "5000"], "use at most 2048"),
        (["--text", __file__, "--ranks", "3", "--experts-per-rank", "2"], "do not fit 3 ranks"),
        (
            ["--text", __file__, "--ranks", "3", "--ranks-per-node", "2"],
            "--ranks-per-node 2 does not divide 3",
        ),
    ],
)
def test_what_record_refuses(wingspan, arguments, message):
    ended = wingspan("record", TINY, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_synthesize_writes_what_was_asked(wingspan, tmp_path):
    out = tmp_path / "t.parquet"
    ended = wingspan(
        "synthesize", "hot-set", "--layers", "3", "--experts", "16", "--experts-per-token", "2", "--tokens", "500",
        "--ranks", "4", "--hot-share", "0.3", "--seed", "7", "--out", str(out),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "MB per million tokens" in ended.out
    file = TraceFile.open(out)
    assert (file.num_tokens, file.num_layers, file.num_experts, file.num_ranks) == (500, 3, 16, 4)
    assert file.origin == "synthetic: hot-set, hot_share 0.3, seed 7"
    refused = wingspan("synthesize", "uniform", "--noise", "0.1", "--out", str(out))
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_routing_as_json_and_page(wingspan, trace, tmp_path):
    page = tmp_path / "page.html"
    ended = wingspan("routing", str(trace), "--ranks-per-node", "4", "--json", "--html", str(page))
    assert ended.code == 0, ended.err
    about = json.loads(ended.out)
    assert about["tokens"] == 4000
    assert len(about["layers"]) == 25
    nodes = about["nodes"][0]
    assert nodes["nodes"] == 4
    assert sum(nodes["share_by_count"]) == pytest.approx(1)
    assert nodes["uniform"] == pytest.approx(4 * (1 - 66 / 120))
    html = page.read_text()
    for words in (
        "Load of every expert",
        "Experts that go together",
        "who goes with whom",
        "Nodes per token",
    ):
        assert words in html
    assert "http-equiv" not in html
    assert 'src="http' not in html


def test_a_placement_says_where_experts_lie(wingspan, trace, tmp_path):
    """With every expert on one node, every token stays on it."""
    together = tmp_path / "p.json"
    together.write_text(json.dumps({"num_experts": 16, "slots": [[[*range(8)], [*range(8, 16)]]] * 25}))
    ended = wingspan("routing", str(trace), "--placement", str(together), "--ranks-per-node", "2", "--json")
    assert json.loads(ended.out)["nodes"][0]["mean"] == 1.0
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"num_experts": 2, "slots": [[[0], [1]]]}))
    refused = wingspan("routing", str(trace), "--placement", str(other))
    assert "1 layers of 2 experts, the trace has 25 of 16" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks-per-node", "x"], "is neither a number nor a range"),
        (["--ranks-per-node", "0"], "use 1 or more"),
        (["--ranks", "0"], "greater than or equal to 1 (given: 0)"),
        (["--placement", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--placement", __file__], "not JSON"),
    ],
)
def test_what_routing_refuses(wingspan, trace, arguments, message):
    ended = wingspan("routing", str(trace), *arguments)
    assert ended.code == 2
    assert message in ended.err


def test_export_and_import(wingspan, tmp_path):
    placement, out, back = (tmp_path / n for n in ("p.json", "s.json", "back.json"))
    placement.write_text(json.dumps({"num_experts": 3, "slots": [[[0], [1], [2], [-1]]] * 2}))
    said = ("--to", "sglang", "--moe-layers", "1,3", "--hidden-layers", "4", "--ranks-per-node", "4")
    refused = wingspan("export", str(placement), *said, "--out", str(out))
    assert refused.code == 2
    assert "--fill-empty" in refused.err
    ended = wingspan("export", str(placement), *said, "--fill-empty", "--out", str(out))
    assert ended.code == 0, ended.err
    assert (
        f"--ep-num-redundant-experts 1 --ep-dispatch-algorithm static --init-expert-location {out}"
        in ended.out
    )
    assert len(json.loads(out.read_text())["physical_to_logical_map"]) == 4
    read = wingspan(
        "import", str(out), "--from", "sglang", "--ranks", "4", "--moe-layers", "1,3", "--out", str(back)
    )
    assert read.code == 0, read.err
    assert json.loads(back.read_text()) == {
        "schema_version": 2,
        "moe_layers": [1, 3],
        "hidden_layers": 4,
        "num_experts": 3,
        "slots": [[[0], [1], [2], [0]]] * 2,
    }
    bad = wingspan("export", str(placement), "--to", "sglang", "--moe-layers", "3-x", "--out", str(out))
    assert "expected layer numbers, as 3-60" in bad.err


def test_import_finds_out_what_it_reads(wingspan, tmp_path):
    load, dump = tmp_path / "load.json", tmp_path / "count.json"
    dump.write_text(json.dumps({"logical_count": [[[0, 0], [3, 1]], [[0, 0], [1, 3]]]}))
    ended = wingspan("import", str(dump), "--from", "sglang", "--out", str(load))
    assert ended.code == 0, ended.err
    assert "recorded load, 2 moments" in ended.out
    assert "max/mean 1.00" in ended.out
    assert json.loads(load.read_text())["moe_layers"] == [1]
