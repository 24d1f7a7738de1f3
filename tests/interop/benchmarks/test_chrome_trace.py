"""Steps are found in traces of torch.profiler, made here, and of Wingspan, by their documented names and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wingspan.errors import InputError
from wingspan.interop.benchmarks.chrome_trace import is_trace, read_trace
from wingspan.report.perfetto import trace_events
from wingspan.schedule.result import Operation, Span, StepSpan, Stream
from wingspan.schedule.run_timeline import RunTimeline

LAYERS = 3


def profiled(path: Path, sequences: int, tokens: int, *, marked: bool = True, modules: bool = True) -> Any:
    """What torch.profiler writes of a few steps of a small model on this machine's CPU."""
    import torch
    from torch import nn
    from torch.profiler import ProfilerActivity, profile, schedule

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(32, 32)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(hidden))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 32)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.head = nn.Linear(32, 10)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            hidden = self.embed(ids)
            for layer in self.layers:
                hidden = layer(hidden)
            return self.head(hidden)

    model, ids = Model(), torch.zeros((sequences, tokens), dtype=torch.long)
    with profile(
        activities=[ProfilerActivity.CPU],
        record_shapes=True,
        with_stack=modules,
        with_modules=modules,
        schedule=schedule(wait=0, warmup=1, active=3, repeat=1) if marked else None,
    ) as profiler:
        for _ in range(4 if marked else 3):
            model(ids)
            if marked:
                profiler.step()
    profiler.export_chrome_trace(str(path))
    return json.loads(path.read_text())


def test_steps_layers_and_shapes_are_found_in_what_torch_profiler_writes(tmp_path: Path) -> None:
    trace = profiled(tmp_path / "t.json", 5, 1)
    assert is_trace(trace)
    (step,) = read_trace(trace, "t.json", LAYERS)
    assert (step.phase, step.tokens, step.ranks, step.count) == ("decode", 5, 1, 3)
    assert step.layers_seconds is not None
    assert 0 < step.layers_seconds < step.seconds
    assert step.remarks == ()


def test_without_marks_and_modules_all_of_it_is_one_step(tmp_path: Path) -> None:
    trace = profiled(tmp_path / "t.json", 2, 7, marked=False, modules=False)
    (step,) = read_trace(trace, "t.json", LAYERS)
    assert (step.phase, step.tokens, step.count) == ("prefill", 14, 1)
    assert step.layers_seconds is None
    assert any("no ProfilerStep" in remark for remark in step.remarks)
    assert any("no modules of layers" in remark for remark in step.remarks)


def test_without_marks_each_pass_of_the_outermost_module_is_a_step(tmp_path: Path) -> None:
    (step,) = read_trace(profiled(tmp_path / "t.json", 5, 1, marked=False), "t.json", LAYERS)
    assert (step.tokens, step.count) == (5, 3)
    assert step.layers_seconds is not None
    assert any("each pass of its outermost module" in remark for remark in step.remarks)


def test_a_gpus_trace_has_no_times_of_layers() -> None:
    events = [
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "ts": 0, "dur": 1000},
        {"ph": "X", "cat": "python_function", "name": "nn.Module: Layer_0", "ts": 10, "dur": 5},
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 100, "dur": 800},
        {"ph": "X", "cat": "cpu_op", "name": "aten::embedding", "ts": 5, "dur": 1,
         "args": {"Input Dims": [[10, 32], [6]]}},
    ]  # fmt: skip
    (step,) = read_trace({"traceEvents": events}, "t.json", 1)
    assert (step.seconds, step.layers_seconds, step.phase, step.tokens) == (1e-3, None, None, 6)


def test_wingspans_own_steps_are_told_apart_by_phase_and_tokens() -> None:
    steps, spans = [], []
    for number, (tokens, long) in enumerate(((4, 9.0), (4, 1.0), (4, 3.0), (2, 0.5)), 1):
        for rank in range(2):
            begin, end = 10.0 * number, 10.0 * number + long + rank * 0.1
            steps.append(
                StepSpan(
                    rank=rank,
                    phase="decode",
                    number=number,
                    tokens=tokens,
                    start_seconds=begin,
                    end_seconds=end,
                )
            )
            for layer, start in ((0, begin + 0.1), (1, begin + 0.2)):
                spans.append(
                    Span(
                        rank=rank, stream=Stream.COMPUTE, operation=Operation.EXPERT, layer=layer,
                        start_seconds=start, end_seconds=start + 0.1,
                    )
                )  # fmt: skip
    found = read_trace(trace_events(RunTimeline(spans, steps)), "r.json", 2)
    assert [(one.phase, one.tokens, one.ranks, one.count) for one in found] == [
        ("decode", 8, 2, 2),
        ("decode", 4, 2, 1),
    ]
    assert found[0].seconds == pytest.approx(2.1)
    assert found[0].remarks == ("the first step is left out: it warms up",)
    assert found[0].layers_seconds == pytest.approx(0.2)
    assert found[1].seconds == pytest.approx(0.6)


def test_what_is_no_trace_or_has_no_steps_is_refused() -> None:
    assert not is_trace({"traceEvents": 3})
    assert not is_trace([1, 2])
    with pytest.raises(InputError, match="without steps or operators"):
        read_trace({"traceEvents": [{"ph": "X", "name": "a", "ts": 1, "dur": 1}]}, "t.json", 1)
    with pytest.raises(InputError, match="has no times"):
        read_trace([{"ph": "X", "name": "a", "ts": "soon", "dur": 1}], "t.json", 1)
