"""Placements leave and enter with their layers' numbers in the model, or not at all."""

import json

import pytest

from wingspan.placement.simple import linear
from wingspan.placement_file import read_placement
from wingspan.specs.stored_placement import StoredPlacement

DEEPSEEK = StoredPlacement(linear(58, 256, 32, 9), tuple(range(3, 61)), 61, 8)


def _write(path, stored=DEEPSEEK):
    path.write_text(json.dumps(stored.to_dict()))
    return str(path)


@pytest.fixture
def older(tmp_path) -> str:
    """A file without anything of the model, as versions before wrote."""
    path = tmp_path / "older.json"
    path.write_text(json.dumps(DEEPSEEK.placement.to_dict()))
    return str(path)


def test_sglang_finds_the_layers_where_the_model_has_them(wingspan, tmp_path):
    """`physical_to_logical_map[n]` is the row of hidden layer n (sglang's expert_location.py)."""
    out = tmp_path / "location.json"
    done = wingspan(
        "export", _write(tmp_path / "p.json"), "--to", "sglang", "--fill-empty", "--out", str(out)
    )
    assert done.code == 0, done.err
    assert "58 MoE layers (3-60 of the model)" in done.out
    assert "--nnodes 4 " in done.out
    rows = json.loads(out.read_text())["physical_to_logical_map"]
    held = DEEPSEEK.placement.slots_LRS.reshape(58, -1)
    assert len(rows) == 61
    for number, wanted in zip(range(3, 61), held.tolist(), strict=True):
        assert all(w in (-1, r) for w, r in zip(wanted, rows[number], strict=True))


@pytest.mark.parametrize(
    ("engine", "name", "options"),
    [
        ("sglang", "x.json", ("--moe-layers", "3-60")),
        ("tensorrt-llm", "x.yaml", ("--hidden-layers", "61")),
        ("vllm", "x.json", ("--moe-layers", "3-60", "--hidden-layers", "61")),
        ("vllm", "x.jsonl", ("--moe-layers", "3-60", "--hidden-layers", "61")),
        ("vllm-ascend", "x.json", ("--moe-layers", "3-60", "--hidden-layers", "61")),
    ],
)
def test_a_placement_comes_back_whole_from_every_engine(wingspan, tmp_path, engine, name, options):
    full = StoredPlacement(linear(58, 64, 16, 4), DEEPSEEK.moe_layers, 61, 8)
    there, back = tmp_path / name, tmp_path / "back.json"
    assert (
        wingspan("export", _write(tmp_path / "p.json", full), "--to", engine, "--out", str(there)).code == 0
    )
    done = wingspan(
        "import", str(there), "--from", engine.removesuffix("-ascend"), "--ranks", "16", "--experts", "64",
        "--ranks-per-node", "8", *options, "--out", str(back),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert read_placement(back) == full


@pytest.mark.parametrize(
    ("engine", "name", "given", "option"),
    [
        ("sglang", "x.json", (), "--moe-layers"),
        ("sglang", "x.json", ("--moe-layers", "3-60"), "--hidden-layers"),
        ("sglang", "x.json", ("--moe-layers", "3-60", "--hidden-layers", "61"), "--ranks-per-node"),
        ("tensorrt-llm", "x.yaml", (), "--moe-layers"),
        ("vllm", "x.json", (), "--ranks-per-node"),
    ],
)
def test_an_older_file_is_refused_with_the_option_that_says_it(
    wingspan, older, tmp_path, engine, name, given, option
):
    out = tmp_path / name
    done = wingspan("export", older, "--to", engine, *given, "--fill-empty", "--out", str(out))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"add {option}" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        ("sglang", ("--moe-layers", "0-57"), "says 3-60"),
        ("sglang", ("--hidden-layers", "62"), "says 61"),
        ("vllm", ("--hidden-layers", "61"), "does not need"),
        ("vllm", ("--moe-layers", "3-60"), "does not need"),
        ("sglang", (), "--fill-empty puts replicas there"),
        ("other", (), "use one of sglang"),
    ],
)
def test_an_option_that_contradicts_or_does_nothing_is_refused(wingspan, tmp_path, engine, options, says):
    out = tmp_path / "x.json"
    done = wingspan("export", _write(tmp_path / "p.json"), "--to", engine, *options, "--out", str(out))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err
    assert not out.exists()


def test_filling_what_is_full_is_refused(wingspan, tmp_path):
    full = StoredPlacement(linear(2, 4, 4), (0, 1), 2, 4)
    done = wingspan(
        "export",
        _write(tmp_path / "p.json", full),
        "--to",
        "sglang",
        "--fill-empty",
        "--out",
        str(tmp_path / "x.json"),
    )
    assert done.code == 2
    assert "has no empty slot" in done.err


def test_imports_say_what_is_missing_and_what_does_nothing(wingspan, tmp_path):
    location = tmp_path / "location.json"
    location.write_text(json.dumps({"physical_to_logical_map": [[0, 1], [1, 0]]}))
    common = ("import", str(location), "--from", "sglang", "--out", str(tmp_path / "x.json"))
    for options, says in [
        (("--ranks", "2"), "which are MoE layers; add --moe-layers"),
        (("--moe-layers", "1"), "over how many ranks; add --ranks"),
        (("--ranks", "2", "--moe-layers", "1", "--hidden-layers", "3"), "2 rows, one a hidden layer, not 3"),
    ]:
        done = wingspan(*common, *options)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert says in done.err


def test_a_deployment_knows_its_layers_and_nodes(wingspan, tmp_path):
    saved, out = tmp_path / "d.json", tmp_path / "x.yaml"
    assert wingspan("simulate", "deepseek-v3", "--ranks", "32", "--out", str(saved)).code == 0
    stored = read_placement(saved)
    assert (stored.moe_layers, stored.hidden_layers, stored.ranks_per_node) == (tuple(range(3, 61)), 61, 8)
    done = wingspan("export", str(saved), "--to", "tensorrt-llm", "--out", str(out))
    assert done.code == 0
    assert "(3-60 of the model)" in done.out
    done = wingspan("simulate", "qwen3-235b-a22b", "--placement", str(saved))
    assert done.code == 2
    assert "for MoE layers 3-60, qwen3-235b-a22b has 0-93" in done.err
