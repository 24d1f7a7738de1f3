import json

import numpy as np
import pytest

from tests.cli.command import TINY
from wingspan.specs.placement import Placement


@pytest.fixture
def trace(wingspan, tmp_path) -> str:
    """Communities on 16 experts of 3 layers."""
    path = tmp_path / "trace.parquet"
    done = wingspan(
        "synthesize", "communities", "--layers", "3", "--experts", "16", "--experts-per-token", "2", "--tokens", "3000",
        "--ranks", "16", "--request-tokens", "8", "--out", str(path),
    )  # fmt: skip
    assert done.code == 0
    return str(path)


@pytest.fixture
def sizes(tmp_path) -> tuple[str, ...]:
    """Options that name the trace's model: one dense layer before its three."""
    model = {
        "model_type": "deepseek_v2", "hidden_size": 512, "vocab_size": 256, "num_hidden_layers": 4,
        "first_k_dense_replace": 1, "intermediate_size": 128, "num_attention_heads": 4, "kv_lora_rank": 16,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 16,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    }  # fmt: skip
    path = tmp_path / "little.json"
    path.write_text(json.dumps(model))
    return ("--model", str(path), "--ranks-per-node", "4")


def test_all_strategies_side_by_side(wingspan, trace, sizes):
    done = wingspan("place", trace, *sizes)
    assert done.code == 0
    for name in ("linear", "round-robin", "random", "eplb", "balanced", "ours"):
        assert f" {name} " in done.out
    assert "faster than linear" in done.out or "No placement helps" in done.out


def test_json_file_and_replanning_from_it(wingspan, trace, sizes, tmp_path):
    out = tmp_path / "placement.json"
    done = wingspan("place", trace, *sizes, "--spare-ranks", "4", "--out", str(out), "--json")
    found = json.loads(done.out)
    ours, linear = found["strategies"]["ours"], found["strategies"]["linear"]
    assert ours["across_bytes"] < 0.7 * linear["across_bytes"]
    assert len(ours["rank_imbalance_per_layer"]) == 3
    assert found["ranks"] == 20
    written = json.loads(out.read_text())
    placement = Placement.from_dict(written)
    assert placement.slots_LRS.shape == (3, 20, 1)
    assert (written["moe_layers"], written["hidden_layers"], written["ranks_per_node"]) == ([1, 2, 3], 4, 4)
    again = wingspan("place", trace, *sizes, "--spare-ranks", "4", "--current", str(out), "--json")
    scores = json.loads(again.out)["strategies"]
    assert scores["present"]["experts_moved"] == scores["ours"]["experts_moved"] == 0


def test_a_deployment_placed_by_a_drawn_trace_is_predicted_as_it_was_placed(wingspan, tmp_path):
    """Its file has the drawn loads, so that it predicts no other routing's step."""
    planned, placed = tmp_path / "planned.json", tmp_path / "placed.json"
    made = wingspan("simulate", "gpt-oss-120b", "--ranks", "32", "-b", "32", "--out", str(planned), "--json")
    assert made.code == 0, made.err
    done = wingspan(
        "place", "--synthetic", "log-normal", "--model", str(planned), "--out", str(placed), "--json"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)["strategies"]["ours"]["step_seconds"]
    report = json.loads(wingspan("simulate", str(placed), "--json").out)
    assert report["step_seconds"] == pytest.approx(said, rel=0.02)
    assert json.loads(made.out)["step_seconds"] != pytest.approx(said, rel=0.05)


def test_another_strategy_can_be_written(wingspan, trace, sizes, tmp_path):
    out = tmp_path / "placement.json"
    assert wingspan("place", trace, *sizes, "--placement", "round-robin", "--out", str(out)).code == 0
    assert np.array_equal(json.loads(out.read_text())["slots"][0], [[e] for e in range(16)])


def test_requests_and_flat_rows(wingspan, trace, sizes):
    done = wingspan("place", trace, *sizes, "--dispatcher", "flat", "--request-routing", "--json")
    scores = json.loads(done.out)["strategies"]
    assert scores["ours + requests"]["across_bytes"] < scores["ours"]["across_bytes"]


def test_a_trace_of_other_ranks_is_dealt_anew_and_said_so(wingspan, trace, sizes):
    found = json.loads(
        wingspan("place", trace, *sizes, "--ranks", "8", "--experts-per-rank", "2", "--json").out
    )
    assert "requests of 16 home ranks dealt to 8 in turn" in found["trace"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give either a trace or load, or --synthetic KIND"),
        (("TRACE", "--synthetic", "uniform"), "give either a trace or load, or --synthetic KIND"),
        (("TRACE", "--ranks", "8", "--experts-per-rank", "1"), "do not fit 8 ranks x 1 slots"),
        (("TRACE", "--ranks", "18"), "18 ranks do not fill whole nodes of 4"),
        (("TRACE", "--placement", "best", "--out", "x.json"), "--placement best: use one of linear"),
        (("TRACE", "--expert-memory-gb", "0.0001"), "exceed the 0.00 GB given"),
        (("TRACE", "--cluster", "moon"), "neither a cluster file nor a preset"),
        (("TRACE", "--current", "none.json"), "none.json: cannot be read"),
        (("--synthetic", "chaos"), "'chaos' is unknown"),
    ],
)
def test_mistakes_are_one_line(wingspan, trace, sizes, arguments, says):
    done = wingspan("place", *(trace if a == "TRACE" else a for a in arguments), *sizes)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_trace_of_another_model_is_refused(wingspan, trace, sizes):
    """Its rows and experts would be priced with sizes that are not its own."""
    done = wingspan("place", trace)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "3 MoE layers, top-2 of 16 experts; add --model" in done.err
    assert "deepseek-v3 has 58 MoE layers, top-8 of 256 experts" in done.err
    done = wingspan("place", trace, "--model", TINY)
    assert (done.code, done.out) == (2, "")
    assert "--model tiny has 7 MoE layers, top-2 of 8 experts" in done.err


def test_a_placement_of_other_layers_is_refused(wingspan, trace, sizes, tmp_path):
    out = tmp_path / "placement.json"
    assert wingspan("place", trace, *sizes, "--out", str(out)).code == 0
    out.write_text(json.dumps(json.loads(out.read_text()) | {"moe_layers": [0, 1, 2]}))
    done = wingspan("place", trace, *sizes, "--current", str(out))
    assert (done.code, done.out) == (2, "")
    assert "for MoE layers 0-2, little has 1-3" in done.err
