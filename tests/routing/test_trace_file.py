"""Traces survive the disk, in pieces as in one, and a bad file is named."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.errors import InputError
from wingspan.routing import trace_file
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import TraceFile, TraceWriter, read_trace, write_trace


def random_trace(
    tokens: int, layers: int, top_k: int, experts: int, ranks: int = 3, seed: int = 0
) -> RoutingTrace:
    rng = np.random.default_rng(seed)
    picks = rng.random((tokens, layers, experts)).argsort(axis=2)[:, :, :top_k].astype(np.int16)
    return RoutingTrace(
        picks,
        rng.integers(0, ranks, tokens).astype(np.int32),
        rng.integers(0, 99, tokens).astype(np.int32),
        np.sort(rng.integers(0, 9, tokens)).astype(np.int32),
        experts,
        ranks,
    )


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(0, 50),
    layers=st.integers(1, 4),
    experts=st.integers(1, 300),
    data=st.data(),
)
def test_round_trip_in_any_pieces(tmp_path_factory, tokens, layers, experts, data):
    top_k = data.draw(st.integers(1, min(experts, 8)))
    trace = random_trace(tokens, layers, top_k, experts)
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    pieces = list(trace.chunks(data.draw(st.integers(1, 60)))) or [trace]
    assert write_trace(path, pieces, "test") == tokens
    assert read_trace(path) == trace
    assert list(path.parent.iterdir()) == [path]


def test_streams_by_row_groups(tmp_path, monkeypatch):
    """The reader yields bounded pieces however the writer was fed."""
    monkeypatch.setattr(trace_file, "_CHOICES_PER_ROW_GROUP", 40)
    trace = random_trace(25, 2, 2, 8)
    write_trace(tmp_path / "t.parquet", trace.chunks(7), "test")
    file = TraceFile.open(tmp_path / "t.parquet")
    assert [piece.num_tokens for piece in file.chunks()] == [10, 10, 5]
    assert file.read() == trace
    assert (file.num_tokens, file.num_layers, file.top_k, file.num_experts, file.num_ranks) == (
        25,
        2,
        2,
        8,
        3,
    )
    assert file.origin == "test"


def test_an_aborted_recording_leaves_nothing(tmp_path):
    def record() -> None:
        with TraceWriter(tmp_path / "t.parquet", "test") as writer:
            writer.append(random_trace(5, 2, 2, 8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_outlives_an_aborted_rewrite(tmp_path):
    path = tmp_path / "t.parquet"
    trace = random_trace(5, 2, 2, 8)
    write_trace(path, [trace], "test")
    with pytest.raises(InputError, match="pieces differ"):
        write_trace(path, [trace, random_trace(5, 3, 2, 8)], "test")
    assert read_trace(path) == trace


def test_time_running_backwards_between_pieces_is_refused(tmp_path):
    late = random_trace(5, 1, 1, 4)
    pieces = [late.take(slice(4, 5)), late.take(slice(0, 1))]
    assert pieces[1].step_T[0] < pieces[0].step_T[0]
    with pytest.raises(InputError, match="time order"):
        write_trace(tmp_path / "t.parquet", pieces, "test")


def test_nothing_recorded_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing was recorded"):
        write_trace(tmp_path / "t.parquet", [], "test")
    with pytest.raises(InputError, match="does not exist; create it"):
        write_trace(tmp_path / "no" / "t.parquet", [random_trace(1, 1, 1, 1)], "test")


def rewritten(path, *, drop=(), whole=None, **about):
    """Rewrite the file at `path` in place, with changed metadata or without some columns."""
    table = pq.read_table(path).drop_columns(list(drop))
    usual = {"version": 1, "num_experts": 8, "num_ranks": 3, "origin": "test"}
    text = json.dumps(usual | about if whole is None else whole)
    pq.write_table(table.replace_schema_metadata({"wingspan.routing_trace": text}), path)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: p.write_text("hello"), "not a Parquet file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-20]), "not a Parquet file"),
        (lambda p: pq.write_table(pa.table({"a": [1]}), p), "no routing trace"),
        (lambda p: rewritten(p, version=2), "schema version 2; this Wingspan reads 1"),
        (lambda p: rewritten(p, num_experts="many"), "num_experts.*is no number.*many"),
        (lambda p: rewritten(p, whole=[]), "not a JSON object"),
        (lambda p: rewritten(p, num_experts=2), "names expert"),
        (lambda p: rewritten(p, drop=["home_rank"]), "column home_rank is missing"),
        (lambda p: rewritten(p, drop=["layer_0"]), "column layer_0 is missing"),
        (lambda p: rewritten(p, drop=["layer_0", "layer_1"]), "no column layer_0"),
    ],
)
def test_a_bad_file_is_named(tmp_path, spoil, message):
    path = tmp_path / "t.parquet"
    write_trace(path, [random_trace(20, 2, 2, 8)], "test")
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
