import json

import numpy as np
import pytest

from tests.cli.command import TINY
from wingspan.placement.placement import Placement


@pytest.fixture
def trace(wingspan, tmp_path) -> str:
    """Communities on 16 experts of 3 layers."""
    path = tmp_path / "trace.parquet"
    done = wingspan(
        "synthesize", "communities", "--layers", "3", "--experts", "16", "--top-k", "2", "--tokens", "3000",
        "--ranks", "16", "--request-tokens", "8", "--out", str(path),
    )  # fmt: skip
    assert done.code == 0
    return str(path)


SIZES = ("--model", TINY, "--ranks-per-node", "4")


def test_all_strategies_side_by_side(wingspan, trace):
    done = wingspan("place", trace, *SIZES)
    assert done.code == 0
    for name in ("linear", "round-robin", "random", "eplb", "balanced", "ours"):
        assert f" {name} " in done.out
    assert "faster than linear" in done.out or "No placement helps" in done.out


def test_json_file_and_replanning_from_it(wingspan, trace, tmp_path):
    out = tmp_path / "placement.json"
    done = wingspan("place", trace, *SIZES, "--spare-ranks", "4", "--out", str(out), "--json")
    found = json.loads(done.out)
    ours, linear = found["strategies"]["ours"], found["strategies"]["linear"]
    assert ours["across_deduplicated_bytes"] < 0.7 * linear["across_deduplicated_bytes"]
    assert len(ours["rank_imbalance_per_layer"]) == 3
    assert found["topology"]["ranks"] == 20
    placement = Placement.from_dict(json.loads(out.read_text()))
    assert placement.slots_LRS.shape == (3, 20, 1)
    again = wingspan("place", trace, *SIZES, "--spare-ranks", "4", "--from", str(out), "--json")
    scores = json.loads(again.out)["strategies"]
    assert scores["present"]["experts_moved"] == scores["ours"]["experts_moved"] == 0


def test_another_strategy_can_be_written(wingspan, trace, tmp_path):
    out = tmp_path / "placement.json"
    assert wingspan("place", trace, *SIZES, "--strategy", "round-robin", "--out", str(out)).code == 0
    assert np.array_equal(json.loads(out.read_text())["slots"][0], [[e] for e in range(16)])


def test_requests_and_flat_rows(wingspan, trace):
    done = wingspan("place", trace, *SIZES, "--flat", "--request-routing", "--json")
    scores = json.loads(done.out)["strategies"]
    assert scores["ours + requests"]["across_flat_bytes"] < scores["ours"]["across_flat_bytes"]


def test_a_trace_of_other_ranks_is_dealt_anew_and_said_so(wingspan, trace):
    found = json.loads(
        wingspan("place", trace, *SIZES, "--ranks", "8", "--slots-per-rank", "2", "--json").out
    )
    assert "requests of 16 home ranks dealt to 8 in turn" in found["trace"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give either a trace or --synthetic KIND"),
        (("TRACE", "--synthetic", "uniform"), "give either a trace or --synthetic KIND"),
        (("TRACE", "--ranks", "8"), "do not fit 8 ranks x 1 slots"),
        (("TRACE", "--ranks", "18"), "18 ranks do not fill whole nodes of 4"),
        (("TRACE", "--strategy", "best"), "--strategy best: use one of linear"),
        (("TRACE", "--expert-memory-gb", "0.0001"), "exceed the 0.00 GB given"),
        (("TRACE", "--cluster", "moon"), "neither a cluster file nor a preset"),
        (("TRACE", "--from", "none.json"), "none.json: cannot be read"),
        (("--synthetic", "chaos"), "'chaos' is unknown"),
    ],
)
def test_mistakes_are_one_line(wingspan, trace, arguments, says):
    done = wingspan("place", *(trace if a == "TRACE" else a for a in arguments), *SIZES)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
