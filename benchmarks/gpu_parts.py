"""The parts of `benchmarks.gpu`. Each yields what it has found so far, more each time.

Shapes: N rows, D hidden size, I inner size, S slots, H heads, W values of a head, C tokens of context.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from wingspan.cost.compute import BatchRegime, experts_seconds, matmul_seconds
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.precision import Precision

Found = dict[str, Any]

_CUDA = torch.device("cuda")
_TRIES = 7
_MODEL = "models/tiny"

CLAIMED_FLOPS = 240e12
CLAIMED_BYTES_PER_SECOND = 1.44e12
"""What the reference model sustains: 60 % of 400 TFLOPS, 80 % of 1.8 TB/s (docs/reference-model.md)."""

EXPERT_ROWS = (1, 4, 16, 64, 256, 1024, 4096, 8192)
PRODUCTS = {
    # (rows, inner, columns) of one layer's dense products, from the models' configurations.
    "DeepSeek-V3 attention output": (128, 16384, 7168),
    "DeepSeek-V3 query, second": (128, 1536, 24576),
    "DeepSeek-V3 dense up": (4096, 7168, 36864),
    "Qwen3-235B attention output": (128, 8192, 4096),
    "Qwen3-235B head": (128, 4096, 151936),
}
GROUPED = {
    # (slots, rows of each, hidden, inner)
    "DeepSeek-V3, 8 experts, 64 rows each": (8, 64, 7168, 2048),
    "DeepSeek-V3, 8 experts, 512 rows each": (8, 512, 7168, 2048),
    "Qwen3-235B, 16 experts, 64 rows each": (16, 64, 4096, 1536),
}


def tests() -> Iterator[Found]:
    """The tests marked `gpu`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "tests/runtime/test_cuda.py",
        ],
        capture_output=True,
        text=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    yield {"exit_code": done.returncode, "said": lines[-60:]}
    if done.returncode:
        raise SystemExit(done.returncode)


def ranks() -> Iterator[Found]:
    """Runs with `--check`: every number of ranks, then every schedule and dispatcher on four."""
    ways = [(n, "sequential", "flat") for n in (1, 2, 4, 8)]
    ways += [
        (4, schedule, dispatcher)
        for schedule in ("chunks:2", "two-batch")
        for dispatcher in ("flat", "deduplicated")
    ]
    runs = []
    for count, schedule, dispatcher in ways:
        found = _run(count, "--check", "--schedule", schedule, "--dispatcher", dispatcher)
        runs.append({"ranks": count, "schedule": schedule, "dispatcher": dispatcher} | found)
        yield {"runs": runs}
    if not all(run["exit_code"] == 0 for run in runs):
        raise SystemExit(1)


def overlap() -> Iterator[Found]:
    """How much of the exchanges holds the ranks up, one after another and beside compute."""
    runs = []
    for schedule in ("sequential", "chunks:2", "two-batch"):
        found = _run(2, "--schedule", schedule, "--max-new-tokens", "32")
        runs.append({"schedule": schedule} | found)
        yield {"runs": runs}


def _run(count: int, *options: str) -> Found:
    """`wingspan run` on the GPU: how it ended, and the figures of its decode steps."""
    prompts = [part for n in range(8) for part in ("--prompt", "def main():" + " x" * n)]
    command = [
        *(sys.executable, "-m", "wingspan.cli.main", "run", _MODEL, "--device", "cuda"),
        *("--ranks", str(count), "--json", *prompts, *options),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    found: Found = {"exit_code": done.returncode, "said": done.stderr.splitlines()[-10:]}
    if done.stdout.startswith("{"):
        result = json.loads(done.stdout)
        report = result["report"]
        found |= {
            "check": result["check"],
            "step_seconds": report["step_seconds"],
            "exposed_seconds": max(report["exposed_communication_seconds"]),
            "operation_seconds": {name: max(of_R) for name, of_R in report["operation_seconds"].items()},
            "notes": report["notes"],
        }
    return found


def kernels() -> Iterator[Found]:
    """Measured beside predicted, by the preset of the card."""
    cluster = card_preset(torch.cuda.get_device_name(0))
    found: Found = {
        "predicted_by": None if cluster is None else cluster.name,
        "claimed_flops": CLAIMED_FLOPS,
        "claimed_bytes_per_second": CLAIMED_BYTES_PER_SECOND,
        "rows": [],
    }
    for measure in (_expert, _products, _products_in_fp8, _grouped, _attention):
        for row in measure(cluster):
            if row.get("predicted_seconds"):
                row["error"] = row["predicted_seconds"] / row["seconds"] - 1
            found["rows"].append(row)
            yield found
    errors = [abs(row["error"]) for row in found["rows"] if "error" in row]
    yield found | {"median_error": statistics.median(errors) if errors else None}


def card_preset(card: str) -> Cluster | None:
    """The cluster preset of this card; None where there is none."""
    for known, preset in (("H200", "h200"), ("H100", "h100-sxm"), ("A100", "a100"), ("B200", "b200")):
        if known in card:
            return load_cluster(preset)
    return None


def seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of a call by the GPU's clock; the first ones warm up. No call follows another's cached reads."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=_CUDA)
    times = []
    for _ in range(_TRIES + 2):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[2:])


def _bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=_CUDA, dtype=torch.bfloat16) / shape[-1] ** 0.5


def _expert(cluster: Cluster | None) -> Iterator[Found]:
    """The reference model's expert, 7168 x 2048: arithmetic and bytes beside what it claims."""
    D, I = 7168, 2048  # noqa: E741 - shapes
    up_ID, down_DI = _bf16(2 * I, D), _bf16(D, I)
    weight_bytes = (up_ID.numel() + down_DI.numel()) * 2
    for rows in EXPERT_ROWS:
        x_ND = _bf16(rows, D)

        def expert(x_ND: torch.Tensor = x_ND) -> torch.Tensor:
            gate_NI, up_NI = F.linear(x_ND, up_ID).chunk(2, -1)
            return F.linear(F.silu(gate_NI) * up_NI, down_DI)

        seconds = seconds_of(expert)
        yield {
            "what": f"expert 7168 x 2048, {rows} rows, BF16",
            "seconds": seconds,
            "flops_per_second": 6 * rows * D * I / seconds,
            "bytes_per_second": (weight_bytes + rows * 2 * 2 * D) / seconds,
            "predicted_seconds": cluster
            and float(
                experts_seconds(
                    cluster,
                    np.array([float(rows)]),
                    D,
                    I,
                    gated=True,
                    weights=Precision.BF16,
                    activations=Precision.BF16,
                    batch=BatchRegime.SMALL,
                )
            ),
        }


def _products(cluster: Cluster | None) -> Iterator[Found]:
    for name, (rows, inner, columns) in PRODUCTS.items():
        x, weight = _bf16(rows, inner), _bf16(columns, inner)
        yield _product_row(
            cluster, f"{name}, BF16", lambda x=x, w=weight: F.linear(x, w), (rows, inner, columns)
        )


def _products_in_fp8(cluster: Cluster | None) -> Iterator[Found]:
    """Where torch has the product in FP8, with one scale for all."""
    if not hasattr(torch, "_scaled_mm") or torch.cuda.get_device_capability() < (8, 9):
        return
    one = torch.ones((), device=_CUDA)
    for name, (rows, inner, columns) in PRODUCTS.items():
        x = _bf16(rows, inner).to(torch.float8_e4m3fn)
        weight = _bf16(columns, inner).to(torch.float8_e4m3fn).t()

        def product(x: torch.Tensor = x, weight: torch.Tensor = weight) -> torch.Tensor:
            return torch._scaled_mm(x, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

        yield _product_row(cluster, f"{name}, FP8", product, (rows, inner, columns), Precision.FP8)


def _product_row(
    cluster: Cluster | None,
    name: str,
    work: Callable[[], object],
    sizes: tuple[int, int, int],
    precision: Precision = Precision.BF16,
) -> Found:
    rows, inner, columns = sizes
    seconds = seconds_of(work)
    predicted = cluster and float(matmul_seconds(cluster, rows, inner, columns, precision, precision))
    return {
        "what": name,
        "seconds": seconds,
        "flops_per_second": 2 * rows * inner * columns / seconds,
        "predicted_seconds": predicted,
    }


def _grouped(cluster: Cluster | None) -> Iterator[Found]:
    """Up and down of all slots, each in one launch, as `SlotLinear` computes them."""
    from wingspan.runtime.dispatch.counts import Counts
    from wingspan.runtime.model.slot_linear import grouped_linear

    for name, (slots, rows, D, I) in GROUPED.items():  # noqa: E741 - shapes
        x_ND, up_SID, down_SDI = _bf16(slots * rows, D), _bf16(slots, 2 * I, D), _bf16(slots, D, I)
        counts_S = Counts(torch.full((slots,), rows, device=_CUDA))

        def experts(
            x_ND: torch.Tensor = x_ND,
            up_SID: torch.Tensor = up_SID,
            down_SDI: torch.Tensor = down_SDI,
            counts_S: Counts = counts_S,
        ) -> torch.Tensor:
            gate_NI, up_NI = grouped_linear(x_ND, counts_S, up_SID, None).chunk(2, -1)
            return grouped_linear(F.silu(gate_NI) * up_NI, counts_S, down_SDI, None)

        seconds = seconds_of(experts)
        yield {
            "what": f"{name}, BF16",
            "seconds": seconds,
            "flops_per_second": 6 * slots * rows * D * I / seconds,
            "predicted_seconds": cluster
            and float(
                experts_seconds(
                    cluster,
                    np.full(slots, float(rows)),
                    D,
                    I,
                    gated=True,
                    weights=Precision.BF16,
                    activations=Precision.BF16,
                    batch=BatchRegime.SMALL,
                )
            ),
        }


def _attention(_: Cluster | None) -> Iterator[Found]:
    """The reference model's attention, 128 heads of 128: a prompt, and sequences that decode."""
    H, W = 128, 128
    for sequences, new, context in ((1, 4096, 4096), (32, 1, 4096), (128, 1, 2048)):
        queries = _bf16(sequences, H, new, W)
        keys, values = _bf16(sequences, H, context, W), _bf16(sequences, H, context, W)

        def attention(
            q: torch.Tensor = queries,
            k: torch.Tensor = keys,
            v: torch.Tensor = values,
            causal: bool = new > 1,
        ) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        seconds = seconds_of(attention)
        seen = context / 2 if new > 1 else context
        yield {
            "what": f"attention 128 x 128, {sequences} sequences, {new} new tokens, context {context}, BF16",
            "seconds": seconds,
            "flops_per_second": 4 * sequences * H * W * new * seen / seconds,
            "bytes_per_second": 2 * keys.nbytes / seconds,
        }


def steps() -> Iterator[Found]:
    """One MoE layer of decode on one rank: what it reads back, and its time eager and as a graph."""
    from benchmarks.gpu_layer import decode_layer, synchronisations

    call = decode_layer(_CUDA)
    found: Found = {"synchronisations_of_a_layer": synchronisations(call)}
    found["eager_seconds"] = seconds_of(call)
    yield found
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        call()
    found["graph_seconds"] = seconds_of(graph.replay)
    yield found


def memory() -> Iterator[Found]:
    """A run's memory by part, predicted beside counted, and what the card holds."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch) / "model"
        made = subprocess.run(
            [sys.executable, "-m", "wingspan.cli.main", "create", "seed-small", str(folder)],
            capture_output=True,
            text=True,
        )
        yield {"created": made.stdout.strip() or made.stderr.strip()}
        yield memory_of(folder, "cuda")


def memory_of(folder: Path, device: str) -> Found:
    """One rank's memory by part for one sequence: predicted, and as a run counts it; its peak is measured."""
    ran = _said_by(
        *("run", str(folder), "--ranks", "1", "--device", device, "--prompt-ids", "5,9,17,3"),
        *("--max-new-tokens", "8"),
    )
    report = ran["report"]
    predicted = _said_by(
        *("simulate", str(folder), "--cluster", "h100-sxm", "--ranks", "1", "--tokens-per-gpu", "1"),
        # The last step adds to what the prompt and all but one of the new tokens left.
        *("--context", "10"),
    )
    return {
        "parts": {
            part: {"predicted_bytes": max(of_R), "counted_bytes": max(report["memory_bytes"].get(part, [0]))}
            for part, of_R in predicted["memory_bytes"].items()
        },
        "predicted_peak_bytes": max(predicted["peak_memory_bytes"]),
        "peak_bytes": max(report["peak_memory_bytes"]),
        "notes": report["notes"],
    }


def _said_by(*arguments: str) -> Found:
    done = subprocess.run(
        [sys.executable, "-m", "wingspan.cli.main", *arguments, "--json"], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    said: Found = json.loads(done.stdout)
    return said


def cluster() -> Iterator[Found]:
    """What `wingspan calibrate` finds, as the file that plans take."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cluster.yaml"
        done = subprocess.run(
            [sys.executable, "-m", "wingspan.cli.main", "calibrate", "--device", "cuda", "--out", str(path)],
            capture_output=True,
            text=True,
        )
        text = path.read_text() if path.exists() else None
        yield {"exit_code": done.returncode, "cluster": text, "said": done.stderr.splitlines()[-10:]}
        if done.returncode:
            raise SystemExit(done.returncode)
