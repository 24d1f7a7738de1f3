"""Loads and maps as users of engines bring them (tests/cases), through the commands that take them."""

import json
from pathlib import Path

import numpy as np
import pytest

CASES = Path(__file__).parents[1] / "cases"
TOY = str(CASES / "models/toy_2_layers_12_experts.config.json")
MATRIX = str(CASES / "loads/eplb_2_layers_12_experts.json")
COUNT = str(CASES / "loads/sglang_logical_count_2_layers_12_experts.json")
UNDECIDED = "only loads are known"


@pytest.fixture
def imported(wingspan, tmp_path) -> str:
    out = tmp_path / "load.json"
    assert wingspan("import", COUNT, "--from", "sglang", "--out", str(out)).code == 0
    return str(out)


@pytest.mark.parametrize(
    "command",
    [
        ("simulate", TOY, "--ranks", "8", "--placement", "balanced", "--experts-per-rank", "2"),
        ("plan", TOY, "--gpus", "8"),
        ("sweep", TOY, "--ranks", "4,8"),
        ("simulate-serving", TOY, "--ranks", "8", "--rate", "5", "--num-requests", "20"),
    ],
)
def test_an_imported_load_is_a_routing_everywhere(wingspan, imported, command):
    for routing in (imported, MATRIX):
        done = wingspan(*command, "--routing", routing)
        assert done.code == 0, done.err
        assert UNDECIDED in " ".join(done.out.split())


def test_a_sweep_says_which_routing_is_a_load(wingspan):
    done = wingspan("sweep", TOY, "--ranks", "8", "--routing", f"{MATRIX},uniform")
    said = f"{Path(MATRIX).name}: {UNDECIDED}"
    assert "".join(said.split()) in "".join(done.out.split())  # wherever the path's length breaks the line


def test_another_models_load_is_refused(wingspan):
    done = wingspan("simulate", "deepseek-v3", "--routing", MATRIX)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "of 12 experts, deepseek-v3 has 256" in done.err


def test_sglangs_csv_of_several_ranks_is_summed(wingspan, tmp_path):
    out = tmp_path / "load.json"
    done = wingspan(
        "import", str(CASES / "dumps/sglang_csv_per_rank"), "--from", "sglang", "--experts", "256", "--out", str(out)
    )  # fmt: skip
    assert done.code == 0, done.err
    load = json.loads(out.read_text())
    assert load["moe_layers"] == [3]
    assert load["load"][0][0][18] == 39249 + 33056


def bring(wingspan, out, name, engine, *options):
    return wingspan("import", str(CASES / "placements" / name), "--from", engine, *options, "--out", str(out))


def test_a_replica_twice_on_a_rank_is_a_slot_and_an_empty_one(wingspan, tmp_path):
    out = tmp_path / "p.json"
    done = bring(wingspan, out, "sglang_expert236_twice_on_rank16_of_32.json", "sglang", "--ranks", "32")
    assert done.code == 0, done.err
    assert "1 replica lies on a rank that holds the expert already (expert 236 on rank 16" in done.out
    rank = json.loads(out.read_text())["slots"][0][16]
    assert (rank.count(236), rank.count(-1)) == (1, 1)


def test_slots_that_do_not_divide_are_counted(wingspan, tmp_path):
    out = tmp_path / "p.json"
    done = bring(wingspan, out, "sglang_276_slots_on_16_ranks.json", "sglang", "--ranks", "16")
    assert (done.code, done.err.count("\n"), out.exists()) == (2, 1, False)
    assert "276 physical experts do not divide over 16 ranks" in done.err


@pytest.mark.parametrize(
    ("name", "engine", "options", "says"),
    [
        ("vllm_offline_map_v1.json", "vllm", ("--ranks", "3"), "3 MoE layers, 4 experts on 3 ranks x 2 slots"),
        ("verl_layout_without_device_count.json", "vllm-ascend", (), "1 MoE layer, 4 experts on 2 ranks x 2 slots"),
        ("tensorrt-llm_72_experts_80_slots_layers_1-29.yaml", "tensorrt-llm", ("--ranks", "8"),
         "29 MoE layers, 72 experts on 8 ranks x 10 slots; layers 1-29 of the model"),
    ],
)  # fmt: skip
def test_maps_of_other_engines(wingspan, tmp_path, name, engine, options, says):
    done = bring(wingspan, tmp_path / "p.json", name, engine, *options)
    assert done.code == 0, done.err
    assert says in done.out


def test_maps_by_model_are_taken_by_name(wingspan, tmp_path):
    file, out = tmp_path / "maps.json", tmp_path / "p.json"
    maps = {
        "Target": {"physical_to_logical_map": [[0, 1, 2, 0], [2, 1, 0, 1]], "num_logical_experts": 3},
        "Draft": {"physical_to_logical_map": [[2, 1, 0, 0]], "num_logical_experts": 3},
    }
    text = {"version": 2, "format": "vllm_offline_eplb_physical_to_logical_by_model", "model_maps": maps}
    file.write_text(json.dumps(text))
    call = ("import", str(file), "--from", "vllm", "--ranks", "2", "--out", str(out))
    done = wingspan(*call)
    assert done.code == 2
    assert "holds maps of Target, Draft; add --model-class" in done.err
    assert wingspan(*call, "--model-class", "Draft").code == 0
    assert json.loads(out.read_text())["slots"] == [[[2, 1], [0, -1]]]
    assert "no map of Other; it has Target, Draft" in wingspan(*call, "--model-class", "Other").err


def test_simulate_takes_an_engines_file_directly(wingspan, tmp_path):
    full = tmp_path / "location.json"
    rows = [[*range(12), 0, 0, 1, 2], [*range(12), 5, 6, 7, 8]]
    full.write_text(json.dumps({"physical_to_logical_map": rows}))
    done = wingspan("simulate", TOY, "--placement", str(full), "--ranks", "8", "--json")
    assert done.code == 0, done.err
    notes = json.loads(done.out)["notes"]
    assert any(
        "expert 0 on rank 6 of MoE layer 0): read as one slot and an empty one" in note for note in notes
    )
    done = wingspan("simulate", TOY, "--placement", str(full))
    assert done.code == 2
    assert "over how many ranks; add --ranks" in done.err


PLACED = ("--model", TOY, "--ranks", "8", "--ranks-per-node", "4")


def test_a_load_leads_to_a_placement(wingspan, imported, tmp_path):
    for number, routing in enumerate((imported, MATRIX)):
        out = tmp_path / f"{number}.json"
        done = wingspan("place", routing, *PLACED, "--experts-per-rank", "2", "--out", str(out), "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert UNDECIDED in found["remarks"][0]
        assert "no later ones" in found["judged_on"]
        scores = found["strategies"]
        assert scores["balanced"]["rank_imbalance"] < 0.6 * scores["linear"]["rank_imbalance"]
        assert len(json.loads(out.read_text())["slots"]) == 2


def test_later_moments_of_a_load_give_the_verdict(wingspan, tmp_path):
    path = tmp_path / "moments.json"
    matrix = json.loads(Path(MATRIX).read_text())
    path.write_text(json.dumps([matrix, matrix, matrix, [row[::-1] for row in matrix]]))
    done = wingspan("place", str(path), *PLACED, "--experts-per-rank", "2")
    assert done.code == 0, done.err
    assert "On the later half of the load, which no plan has seen" in " ".join(done.out.split())


def test_one_call_from_an_engines_dump_to_its_placement(wingspan, tmp_path):
    out, page = tmp_path / "location.json", tmp_path / "page.html"
    done = wingspan(
        "place", COUNT, "--from", "sglang", *PLACED, "--redundant", "4", "--to", "sglang", "--out", str(out),
        "--html", str(page),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "--ep-num-redundant-experts 4" in done.out
    rows = json.loads(out.read_text())["physical_to_logical_map"]
    assert [len(row) for row in rows] == [16, 16]
    assert all(set(row) == set(range(12)) for row in rows)
    text = page.read_text()
    assert all(
        title in text for title in ("Load per rank", "Bytes per link: network card", "What moves", "costs")
    )
    present = wingspan("place", MATRIX, *PLACED, "--redundant", "4", "--current", str(out), "--json")
    assert json.loads(present.out)["strategies"]["present"]["experts_moved"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--redundant", "3"), "--redundant 3: 12 + 3 = 15 slots do not divide over 8 ranks; use 4"),
        (("--redundant", "4", "--experts-per-rank", "2"), "give one of them"),
        (("--redundant", "4", "--spare-ranks", "4"), "give one of them"),
        (("--request-routing", "--redundant", "4"), "--request-routing: loads do not say"),
        (("--to", "sglang"), "--to sglang: does nothing here"),
        (("--to", "other", "--out", "x.json"), "engine 'other' is unknown"),
        (("--from", "other"), "engine 'other' is unknown"),
        (("--from", "vllm"), "holds a placement; give it as --current"),
    ],
)
def test_what_place_cannot_do_with_a_load_is_said(wingspan, tmp_path, arguments, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = wingspan("place", MATRIX, *PLACED, *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


def test_place_without_a_model_asks_for_it(wingspan):
    done = wingspan("place", MATRIX)
    assert done.code == 2
    assert "of 12 experts, deepseek-v3 has 256; use loads of this model, or add --model" in done.err


def test_routing_shows_what_a_load_says(wingspan):
    done = wingspan("routing", MATRIX, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [layer["hottest_expert"] for layer in found["layers"]] == [10, 5]
    assert found["choices"] == 2189
    assert "max/mean" in wingspan("routing", MATRIX).out
    for option, value in (("--pairs", "3"), ("--windows", "8"), ("--ranks", "2")):
        done = wingspan("routing", MATRIX, option, value)
        assert (done.code, done.out) == (2, "")
        assert f"{option} {value}:" in done.err
        assert "holds loads alone" in done.err


def test_the_page_of_a_load_shows_what_it_has(wingspan, tmp_path):
    page = tmp_path / "load.html"
    done = wingspan("routing", MATRIX, "--html", str(page))
    assert done.code == 0, done.err
    text = page.read_text()
    for words in ("Load of every expert", "Imbalance of every layer", "only loads are known"):
        assert words in text
    assert "Experts that go together" not in text


def test_a_deployment_with_a_load_is_simulated_from_its_file(wingspan, tmp_path):
    out = tmp_path / "d.json"
    args = ("simulate", TOY, "--ranks", "8", "--experts-per-rank", "2", "--routing", MATRIX)
    assert wingspan(*args, "--out", str(out)).code == 0
    placed = tmp_path / "placed.json"
    done = wingspan("place", MATRIX, "--model", str(out), "--out", str(placed))
    assert done.code == 0, done.err
    notes = json.loads(wingspan("simulate", str(placed), "--json").out)["notes"]
    assert any(UNDECIDED in note for note in notes)


def test_ranks_alone_get_as_many_slots_as_hold_all_experts(wingspan):
    done = wingspan("place", MATRIX, *PLACED[:2], "--ranks", "3", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["experts_per_rank"] == 4


def test_the_example_of_the_published_rule_is_placed_as_evenly_as_by_it(wingspan, tmp_path):
    """16 slots on 8 ranks, as the README of github.com/deepseek-ai/EPLB has it, from a matrix of numpy."""
    load = tmp_path / "load.npy"
    np.save(load, np.array(json.loads(Path(MATRIX).read_text()), float))
    found = _strategies(
        wingspan("place", str(load), "--model", TOY, "--ranks", "8", "--redundant", "4", "--json")
    )
    assert found["ours"]["rank_imbalance"] <= found["eplb"]["rank_imbalance"] + 1e-9
    assert found["ours"]["step_seconds"] <= found["eplb"]["step_seconds"]


def test_the_loads_of_a_whole_model_are_placed_no_worse_than_by_the_rule(wingspan, tmp_path):
    """58 layers of 256 experts; the judged step is drawn, so its fullest rank is chance to a percent."""
    load = tmp_path / "load.npy"
    np.save(load, 1000 * np.random.default_rng(3).lognormal(0, 1, (58, 256)))
    asked = ("place", str(load), "--model", "deepseek-v3", "--ranks", "32", "--redundant", "32", "--json")
    found = _strategies(wingspan(*asked))
    assert found["balanced"]["rank_imbalance"] <= 1.01 * found["eplb"]["rank_imbalance"]
    assert found["ours"]["step_seconds"] <= min(found[name]["step_seconds"] for name in ("linear", "eplb"))


def _strategies(done):
    assert done.code == 0, done.err
    return json.loads(done.out)["strategies"]
