"""On GPUs: the same outputs as on the CPU, over NCCL, in every schedule. Skipped where there is no CUDA device.

None of these has run yet: no machine with a GPU was at hand (README, "What is true today").
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runtime.checkpoints import configurations, write
from wingspan.runtime.dispatch.choice import DispatchOptions
from wingspan.runtime.generation.prompts import Prompt, Tokenizer
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.slot_linear import grouped_linear, linear_by_slot
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.run import Listener, RunRequest, checked, run
from wingspan.runtime.start import EngineSetup
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS == 0, reason="needs a CUDA device")]
CUDA = torch.device("cuda")
SILENT = Listener(on_loaded=lambda seconds: None, on_tokens=lambda tokens: None)


@pytest.mark.parametrize("overlap", ["sequential", "chunks:2", "two-batch"])
@pytest.mark.parametrize("ranks", sorted({1, GPUS}))
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_a_run_on_gpus_equals_plain_transformers(name: str, ranks: int, overlap: str, tmp_path: Path) -> None:
    folder = write(configurations()[name], tmp_path / name)
    model = describe(folder)
    flow = flow_named(overlap)
    request = RunRequest(
        EngineSetup(
            model,
            default_placement(model.shape, ranks, -(-model.shape.num_experts // ranks)),
            CUDA,
            DispatchOptions(DispatcherKind.FLAT),
            {"prefill": flow, "decode": flow},
        ),
        [Prompt(n, ids, None, n % ranks) for n, ids in enumerate(([5, 9, 17], [1], [7, 8], [100]))],
        4,
        Sampling(),
        keep_logits=True,
    )

    def work(transport: Transport) -> None:
        result = run(transport, request, Tokenizer(folder), SILENT)
        if result is not None:
            found = checked(result, request).check
            assert found is not None
            # cuBLAS sums in another order than the CPU's reference, possibly in TF32.
            assert found.max_logit_difference <= 1e-3 * max(1.0, found.largest_logit)

    run_ranks(work, ranks, ranks, CUDA)


def test_the_grouped_product_equals_the_plain_ones() -> None:
    torch.manual_seed(0)
    counts = [64, 0, 96, 32]
    rows = torch.randn(sum(counts), 128, device=CUDA, dtype=torch.bfloat16)
    weights = torch.randn(4, 64, 128, device=CUDA, dtype=torch.bfloat16)
    bias = torch.randn(4, 64, device=CUDA, dtype=torch.bfloat16)
    torch.testing.assert_close(
        grouped_linear(rows, counts, weights, bias),
        linear_by_slot(rows, counts, weights, bias),
        rtol=2e-2,
        atol=2e-1,
    )


@pytest.mark.skipif(GPUS < 2, reason="needs two CUDA devices")
def test_a_transfer_goes_on_while_the_gpu_computes() -> None:
    """NCCL works on a stream of its own: started, a product beside it, and only then waited for."""

    def work(transport: Transport) -> None:
        size, rank = transport.world.size, transport.world.rank
        rows = torch.full((size * 1000, 1024), float(rank), device=CUDA)
        received = torch.empty_like(rows)
        pending = transport.exchange_rows(received, rows, [1000] * size, [1000] * size)
        product = torch.randn(4096, 4096, device=CUDA) @ torch.randn(4096, 4096, device=CUDA)
        pending.wait()
        assert torch.isfinite(product).all()
        assert received.view(size, 1000, -1)[:, 0, 0].tolist() == list(range(size))

    run_ranks(work, GPUS, GPUS, CUDA)
