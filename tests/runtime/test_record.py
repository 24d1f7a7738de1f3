"""A recorded trace holds what plain transformers' router picks, whatever the ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.runtime.checkpoints import configurations, write
from tests.runtime.forked import on_ranks
from wingspan.errors import InputError, RunError
from wingspan.routing.trace import RoutingTrace
from wingspan.routing.trace_file import TraceFile
from wingspan.runtime.measuring.choices import RoutingRecorder
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.record import RecordRequest, cut_windows, record

CPU = torch.device("cpu")
WINDOWS = [[5, 9, 17, 3], [1, 2], [7, 8, 9], [100, 101, 102, 103, 104], [6]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(configurations()["qwen3_moe"], tmp_path_factory.mktemp("model"))


def recorded(folder: Path, ranks: int, slots: int, scratch: Path, per_step: int = 1) -> TraceFile:
    model = describe(folder)
    out = scratch / "trace.parquet"
    request = RecordRequest(
        model, default_placement(model.shape, ranks, slots), WINDOWS, per_step, CPU, out, "test"
    )
    seen: list[int] = []
    results = on_ranks(lambda t: (record(t, request, seen.append), list(seen)), ranks, scratch)
    assert results[0][0].tokens == sum(map(len, WINDOWS)) == sum(results[0][1])
    assert all(result == (None, []) for result in results[1:])
    return TraceFile.open(out)


def reference_picks(folder: Path) -> np.ndarray:
    """What the router picks window by window in one process: (T, L, K), each token's experts sorted."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    picks = []
    for window in WINDOWS:
        with torch.no_grad():
            logits_L = model(torch.tensor([window]), output_router_logits=True).router_logits
        picks.append(torch.stack([logits.topk(2).indices.sort().values for logits in logits_L], dim=1))
    return torch.cat(picks).numpy()


def by_request(trace: RoutingTrace) -> np.ndarray:
    order = np.argsort(trace.request_T, kind="stable")
    return np.sort(trace.experts_TLK[order], axis=2)


@pytest.mark.parametrize(("ranks", "slots", "per_step"), [(1, 6, 2), (3, 2, 1), (3, 2, 4), (6, 1, 1)])
def test_equals_the_router_of_plain_transformers(folder, ranks, slots, per_step, tmp_path):
    """With 3 ranks some steps leave ranks without a window; with 6 one rank never has any; windows are padded."""
    file = recorded(folder, ranks, slots, tmp_path, per_step)
    trace = file.read()
    assert (file.num_layers, file.num_experts, file.top_k, file.num_ranks) == (1, 6, 2, ranks)
    assert np.array_equal(by_request(trace), reference_picks(folder))
    lengths = np.bincount(trace.request_T)
    assert lengths.tolist() == [len(w) for w in WINDOWS]
    assert np.array_equal(trace.home_rank_T, trace.request_T % ranks)
    assert np.array_equal(trace.step_T, trace.request_T // (ranks * per_step))


def test_windows_do_not_mix_texts():
    assert cut_windows([[1, 2, 3, 4, 5], [], [6]], 2, None) == [[1, 2], [3, 4], [5], [6]]
    assert cut_windows([[1, 2, 3, 4, 5], [6]], 2, 3) == [[1, 2], [3]]
    with pytest.raises(InputError, match="hold no token"):
        cut_windows([[], []], 2, None)


def test_a_layer_that_took_no_part_is_named():
    recorder = RoutingRecorder(2)
    recorder(0, torch.zeros((3, 2), dtype=torch.int64))
    with pytest.raises(RunError, match="MoE layer 1 took no part"):
        recorder.take()
