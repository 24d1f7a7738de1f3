"""A rank's memory is the shared weights and its share of the experts: it falls with the number of ranks."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import pytest
import torch
from benchmarks.loading import LARGE, worst_loaded, written
from transformers import AutoModelForCausalLM, MixtralConfig

from tests.runtime.anonymous import anonymous_bytes, peak
from tests.runtime.forked import on_ranks
from tests.runtime.model.twins import FORMATS
from wingspan.runtime.model.engine import default_placement, describe, load
from wingspan.runtime.ranks.memory import keep_freed_memory, return_freed_memory
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.memory import MemoryPart

EXPERTS = 16
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 MB in FP32, of which 95 % are experts."""
    config = MixtralConfig(
        vocab_size=128, hidden_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=1024, num_local_experts=EXPERTS, num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("large")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(
        folder, max_shard_size="60MB"
    )
    return folder


def measure(checkpoint: Path, ranks: int, scratch: Path) -> list[dict[str, int]]:
    model = describe(checkpoint)
    placement = default_placement(model.shape, ranks, EXPERTS // ranks)

    def work(transport: Transport) -> dict[str, int]:
        return_freed_memory()  # What the parent had freed: a rank that used it again would not seem to grow.
        before = anonymous_bytes()
        with peak() as largest:
            engine = load(model, placement, transport, torch.device("cpu"))
        with torch.inference_mode():
            engine.model(torch.arange(16)[None])
        return_freed_memory()
        return {
            "grown": anonymous_bytes() - before,
            "peak": largest[0] - before,
            "experts": engine.weight_bytes[MemoryPart.EXPERTS],
            "parts": sum(engine.weight_bytes.values()) + engine.buffers.size_bytes,
        }

    scratch.mkdir()
    return on_ranks(work, ranks, scratch)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_rank_holds_its_share(checkpoint, ranks, tmp_path):
    all_experts = 2 * EXPERTS * 3 * 512 * 1024 * 4
    for rank in measure(checkpoint, ranks, tmp_path / "scratch"):
        assert rank["experts"] == all_experts // ranks
        # Shared weights may stay mapped from the file.
        assert 0.9 * rank["experts"] <= rank["grown"] <= 1.1 * rank["parts"]


def test_loading_never_holds_more_than_the_share(checkpoint, tmp_path):
    """With 8 ranks, a rank that may use a third of the checkpoint's size loads it all the same."""
    size_bytes = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    for rank in measure(checkpoint, 8, tmp_path / "scratch"):
        assert rank["peak"] <= size_bytes / 3


@pytest.fixture(scope="module")
def fresh() -> Iterator[ProcessPoolExecutor]:
    """A process that has freed nothing that the ranks forked from it would use."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool
    # What the pool started beside its process would stay a child of this one.
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "ranks"), [(name, (3, 4, 1)[n % 3]) for n, name in enumerate(FORMATS)])
def test_loading_holds_the_share_and_one_expert(fresh, name, ranks, tmp_path):
    """On so many ranks; a layer has three experts and more on each."""
    folder = fresh.submit(written, tmp_path / "large", name, LARGE).result(60)[name]
    loaded = fresh.submit(worst_loaded, folder, ranks, torch.bfloat16).result(60)
    assert loaded.share_bytes > 3 * loaded.expert_bytes
    assert loaded.holds, loaded


def test_freed_memory_is_kept_until_it_is_returned(tmp_path):
    """Tensors of one size come and go without a page fault; 16 MiB have 4096 pages."""

    def work(_: Transport) -> tuple[int, int]:
        keep_freed_memory()
        faults = []
        for number in range(12):
            if number == 11:
                return_freed_memory()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(4 << 20)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        # Some take new pages all the same, where a small tensor lies in the room of the one before.
        return sorted(faults[1:11])[5], faults[11]

    ((kept, returned),) = on_ranks(work, 1, tmp_path)
    assert kept < 100
    assert returned > 3000
