"""Loads as people have them: a matrix in four formats, a list of pairs, moments; and what is no load is named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wingspan.errors import InputError
from wingspan.routing.load_file import read_load
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.specs.models import load_model
from wingspan.specs.routing_text import LOADS_ALONE, fitted, parse_routing
from wingspan.specs.workload import RecordedRouting

MATRIX = np.array([[4, 0, 2, 1], [1, 3, 3, 0]])


def written(path, layer_column=False):
    """The matrix in the format that the ending names."""
    if path.suffix == ".npy":
        np.save(path, MATRIX)
    elif path.suffix == ".json":
        path.write_text(json.dumps(MATRIX.tolist()))
    elif path.suffix == ".csv":
        head = "layer,e0,e1,e2,e3\n" if layer_column else ""
        rows = [[n + 3, *row] if layer_column else row for n, row in enumerate(MATRIX.tolist())]
        path.write_text(head + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    else:
        columns = {"layer": [3, 4]} if layer_column else {}
        pq.write_table(pa.table(columns | {str(n): MATRIX[:, n] for n in range(4)}), path)
    return path


@pytest.mark.parametrize("name", ["x.npy", "x.json", "x.csv", "x.parquet"])
def test_a_matrix_is_the_same_in_every_format(tmp_path, name):
    load = read_load(written(tmp_path / name))
    assert load.load_LE.tolist() == MATRIX.tolist()
    assert load.moe_layers is None


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_column_may_number_the_layers(tmp_path, name):
    load = read_load(written(tmp_path / name, layer_column=True))
    assert load.load_LE.tolist() == MATRIX.tolist()
    assert load.moe_layers == (3, 4)


def test_a_list_of_pairs_is_spread_out_and_summed_over_files(tmp_path):
    (tmp_path / "a.csv").write_text("layer_id,expert_id,count\n3,0,5\n3,2,1\n")
    (tmp_path / "b.csv").write_text("layer_id,expert_id,count\n3,0,2\n5,1,4\n")
    load = read_load(tmp_path, 4)
    assert load.load_LE.tolist() == [[7, 0, 1, 0], [0, 4, 0, 0]]
    assert (load.moe_layers, load.remarks) == ((3, 5), ())
    assert read_load(tmp_path).remarks == ("3 experts: the highest number seen + 1",)
    with pytest.raises(InputError, match="names expert 2; there are 2"):
        read_load(tmp_path, 2)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", "[[1, -1]]", "0 or more"),
        ("x.json", "[[1, NaN]]", "finite"),
        ("x.json", "[[1, 2], [3]]", "no matrix of loads"),
        ("x.json", '[["a"]]', "no matrix of numbers"),
        ("x.json", "[[0, 0]]", "no expert has any token"),
        ("x.json", "[1, 2]", "expected layers x experts"),
        ("x.json", "[]", "expected layers x experts"),
        ("x.json", "[" * 100_000, "no matrix of loads"),
        ("x.json", '{"logical_count": [[1]]}', "wingspan import"),
        ("x.csv", "", "is empty"),
        ("x.csv", "1,2\n3\n", "line 2: expected 2 numbers"),
        ("x.csv", "1,2\n3,a\n", "line 2: expected 2 numbers"),
        ("x.csv", "layer,expert\n1,2\n", "layer, expert and count"),
        ("x.csv", "layer,expert,count\n1,2.5,1\n", "whole numbers"),
        ("x.csv", "layer,a,b\n4,1,1\n3,1,1\n", "must rise"),
        ("x.csv", "layer,expert,count\n1,999999999999,1\n", "more than can be meant"),
        ("x.npy", "no numpy", "no matrix of loads"),
        ("x.parquet", "no parquet", "not a Parquet file"),
    ],
)
def test_what_is_no_load_is_named(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def fit(load_LE, moe_layers=None):
    """To a model of layers 1 and 2 of three, with four experts."""
    return RecordedLoad(np.asarray(load_LE)[None], moe_layers, "x").of_model((1, 2), 3, 4, "little")


def test_rows_of_dense_layers_go_and_are_counted():
    assert fit(MATRIX).load_LE.tolist() == MATRIX.tolist()
    whole = fit(np.vstack([np.zeros((1, 4)), MATRIX]))
    assert whole.load_LE.tolist() == MATRIX.tolist()
    assert whole.remarks == ("1 row is of a dense layer of little and left out",)
    assert "although they count tokens" in fit(np.vstack([np.ones((1, 4)), MATRIX])).remarks[0]
    assert fit(np.vstack([MATRIX, MATRIX[:1]]), (1, 2, 7)).load_LE.tolist() == MATRIX.tolist()


@pytest.mark.parametrize(
    ("load", "layers", "says"),
    [
        (MATRIX.T, None, "transpose it"),
        (np.ones((4, 4)), None, "of 4 layers, little has 2 MoE layers"),
        (MATRIX, (0, 1), r"of 2 layers \(0-1 of their model\), little has 2 MoE layers \(1-2\)"),
        (np.ones((2, 5)), None, "of 5 experts, little has 4"),
    ],
)
def test_another_models_loads_are_refused_with_the_mend(load, layers, says):
    with pytest.raises(InputError, match=says):
        fit(load, layers)


def test_a_load_as_routing_says_what_it_leaves_undecided(tmp_path):
    model = load_model("mixtral-8x7b")
    path = tmp_path / "one.json"
    path.write_text(json.dumps([[5, 1, 1, 1, 2, 1, 1, 1]]))
    routing = fitted(parse_routing(str(path)), model)
    assert isinstance(routing, RecordedRouting)
    assert len(routing.loads) == len(model.moe_layers)
    assert routing.remarks == (LOADS_ALONE, "one row of loads stands for every MoE layer")
