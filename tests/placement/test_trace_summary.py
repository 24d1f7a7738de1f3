"""A trace in figures, with its experts where a placement has them."""

from __future__ import annotations

import numpy as np
import pytest

from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.placement.trace_summary import placed_in_order, summarise_trace
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.trace_file import TraceFile, write_trace
from wingspan.routing.workloads import workload
from wingspan.specs.placement import Placement


@pytest.fixture
def file(tmp_path) -> TraceFile:
    shape = TraceShape(400, 3, 8, 2, 4)
    write_trace(tmp_path / "t.parquet", generate(shape, workload("uniform", shape, 1), 1), "test")
    return TraceFile.open(tmp_path / "t.parquet")


def test_nodes_are_those_of_the_first_replicas(file):
    spread = placed_in_order(file)
    doubled = Placement(np.concatenate([spread.slots_LRS, spread.slots_LRS[:, ::-1]], axis=2), 8)
    one, _ = summarise_trace(file, spread, [2])
    two, _ = summarise_trace(file, doubled, [2])
    # Of expert 7 the replica on rank 0 comes first.
    assert doubled.first_rank_LE.tolist() == [[0, 1, 2, 3, 3, 2, 1, 0]] * 3
    assert (one.nodes[0].nodes, two.nodes[0].nodes) == (4, 2)
    assert two.nodes[0].mean < one.nodes[0].mean


def test_a_placement_of_another_model_is_refused(file):
    with pytest.raises(InputError, match=r"2 layers of 8 experts, the trace has 3 of 8"):
        summarise_trace(file, linear(2, 8, 8), [2])
    with pytest.raises(InputError, match="`ranks` 0"):
        placed_in_order(file, 0)
