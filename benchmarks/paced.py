"""Paced deployments on a testbed of shaped links, measured and predicted: root and Linux.

    python -m benchmarks.paced overlap       # how much of the transfers hides behind compute of equal length
    python -m benchmarks.paced prediction    # predicted against measured step, schedules x dispatchers x batches
    python -m benchmarks.paced scaling       # parallel efficiency at EP 16, 32, 64 against one node

Compute is paced (ranks sleep as long as the described GPU computes, times the scale that is printed); transfers are
real, through the runtime's own dispatchers and schedules. Each builds testbeds of its own and removes them.
"""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# The nodes have no name service; torch would warn of it once per rank.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch

from wingspan.deployment import Deployment, Options
from wingspan.placement.spec import PlacementSpec
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.measuring.calibrate import measure_links
from wingspan.runtime.measuring.cluster import with_links
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation, StepReport
from wingspan.simulate.step import simulate
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.families import model_from_config
from wingspan.specs.workload import Context, Workload
from wingspan.testbed import emulate, network
from wingspan.testbed.layout import make_layout, show_rate

CPU = torch.device("cpu")
TRANSFERS = (Operation.DISPATCH, Operation.COMBINE)
WAYS = ("sequential", "chunks:4", "two-batch")


@dataclass(frozen=True)
class Case:
    """One deployment and how much slower than its GPU it computes; None: as long as its transfers should take."""

    name: str
    deployment: Deployment
    time_scale: float | None = None


def deployment(
    ranks: int,
    tokens: int,
    way: str,
    dispatcher: DispatcherKind,
    *,
    layers: int,
    hidden: int = 1024,
    top_k: int = 4,
) -> Deployment:
    """A prefill step of a plain MoE model, one expert per rank, on the seed's ideal GPUs (flat 60 % of the peak).

    With hidden 1024 and top-4 its experts compute as long as its attention, so that two batches can alternate.
    """
    model = model_from_config(
        {
            "name": "benchmark", "model_type": "wingspan_moe", "vocab_size": 1024, "hidden_size": hidden,
            "num_hidden_layers": layers, "first_k_dense_replace": 0, "num_attention_heads": 16,
            "num_key_value_heads": 16, "head_dim": 128, "intermediate_size": 2048, "moe_intermediate_size": 1472,
            "num_experts": ranks, "num_experts_per_tok": top_k, "n_shared_experts": 0, "gated_experts": False,
            "dtype": "bfloat16",
        },
        "benchmark",
    )  # fmt: skip
    return Deployment(
        model=model,
        cluster=load_cluster("seed-ideal").with_gpus(ranks),
        workload=Workload(phase="prefill", tokens_per_gpu=tokens, context=Context(mean_tokens=tokens // 2)),
        placement=PlacementSpec(ranks=ranks),
        options=Options(schedule=way, dispatcher=dispatcher),
    )


@dataclass(frozen=True)
class Result:
    """A case as predicted and as measured."""

    case: Case
    scale: float
    predicted: StepReport
    measured: StepReport


Show = Callable[[Result], None]


def run(
    nodes: int, ranks_per_node: int, rate: str, cases: Iterable[Case], steps: int, show: Show
) -> list[Result]:
    """Build a testbed, run the cases one after another in one group, and remove it; rank 0 shows each as it ends."""
    layout = make_layout("bench_paced", nodes, ranks_per_node, rate)
    places = layout.places

    def on_rank(joined: Transport, kept: Path) -> None:
        transport = SharedMemoryTransport(joined)
        links = measure_links(transport, CPU)
        results = []
        for case in cases:
            result = measure(transport, case, with_links(case.deployment.cluster, links), steps)
            if result is not None:
                show(result)
                results.append(result)
        if joined.world.rank == 0:
            kept.write_bytes(pickle.dumps(results))
        transport.close()

    network.up(layout)
    try:
        with TemporaryDirectory() as folder:
            kept = Path(folder) / "results"
            run_ranks(lambda joined: on_rank(joined, kept), places.size, places.ranks_per_node, CPU, places)
            results: list[Result] = pickle.loads(kept.read_bytes())
            return results
    finally:
        network.down(layout.name)


def measure(transport: Transport, case: Case, links: Cluster, steps: int) -> Result | None:
    """Collective: one case; its result on rank 0."""
    drawn = emulate.choices(case.deployment)
    per_node = transport.world.ranks_per_node
    scale = case.time_scale or _equal_scale(case.deployment, links, per_node, drawn)
    emulated = emulate.emulated(case.deployment, links, per_node, scale, drawn)
    measured = emulate.run_emulated(transport, emulated, drawn, steps)
    return None if measured is None else Result(case, scale, simulate(emulated), measured[0])


def _equal_scale(given: Deployment, links: Cluster, per_node: int, drawn: object) -> float:
    """The scale at which a sequential step should compute as long as it transfers."""
    options = given.options.model_copy(update={"schedule": "sequential"})
    plain = given.model_copy(update={"options": options})
    report = simulate(emulate.emulated(plain, links, per_node, 1.0, drawn))  # type: ignore[arg-type]
    mean = {op: sum(s) / len(s) for op, s in report.operation_seconds.items() if op is not Operation.WAIT}
    transfers = sum(mean[op] for op in TRANSFERS)
    return transfers / (sum(mean.values()) - transfers)


def _measured_scale(sequential: Result) -> float:
    """The scale at which that step would have computed as long as it transferred."""
    transfers = sequential.measured.overhead
    return sequential.scale * transfers / (1 - transfers)


def overlap(rate: str, steps: int) -> None:
    """4 nodes x 4 ranks, compute as long as the transfers: what each schedule leaves exposed."""
    print(f"4 nodes x 4 ranks, {rate} a node, compute and transfers equally long; {steps} steps, paced")
    print(
        f"{'schedule':11} {'dispatch':13} {'step':>8} {'exposed':>8} {'predicted step':>15} {'exposed':>8} {'scale':>7}"
    )
    dispatchers = (DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL)
    as_predicted = [
        Case("sequential", deployment(16, 256, "sequential", dispatcher, layers=16))
        for dispatcher in dispatchers
    ]
    scales = [_measured_scale(result) for result in run(4, 4, rate, as_predicted, 1, lambda _: None)]
    cases = [
        Case(way, deployment(16, 256, way, dispatcher, layers=16), scale)
        for dispatcher, scale in zip(dispatchers, scales, strict=True)
        for way in WAYS
    ]

    def show(result: Result) -> None:
        case, predicted, measured = result.case, result.predicted, result.measured
        print(
            f"{case.name:11} {case.deployment.dispatcher.value:13} "
            f"{measured.step_seconds:7.2f}s {measured.overhead:8.1%} "
            f"{predicted.step_seconds:9.2f}s {predicted.overhead:8.1%} {result.scale:7.0f}",
            flush=True,
        )

    run(4, 4, rate, cases, steps, show)


def prediction(rate: str, steps: int) -> None:
    """3 schedules x 2 dispatchers x 3 batch sizes: the step's error."""
    print(f"4 nodes x 4 ranks, {rate} a node; {steps} steps, paced")
    print(f"{'tokens':>6} {'dispatch':13} {'schedule':11} {'predicted':>10} {'measured':>9} {'error':>7}")
    cases = [
        Case(way, deployment(16, tokens, way, dispatcher, layers=4))
        for tokens in (64, 256, 512)
        for dispatcher in (DispatcherKind.FLAT, DispatcherKind.HIERARCHICAL)
        for way in WAYS
    ]

    def show(result: Result) -> None:
        given, predicted, measured = result.case.deployment, result.predicted, result.measured
        print(
            f"{given.workload.tokens_per_gpu:6} {given.dispatcher.value:13} {result.case.name:11} "
            f"{predicted.step_seconds:9.2f}s {measured.step_seconds:8.2f}s "
            f"{predicted.step_seconds / measured.step_seconds - 1:+7.1%}",
            flush=True,
        )

    run(4, 4, rate, cases, steps, show)


# What a node's link stands for, in bytes per second: eight network cards of 50 GB/s (H100), or eight times the
# seed's 1.44 TB/s; and how many times faster than the given rate its stand-in is, so that a step does not last minutes.
NETWORKS = {"h100": (8 * 50e9, 1), "seed-ideal": (8 * 1.44e12, 10)}


def scaling(rate: str, steps: int) -> None:
    """EP 8 (one node), 16, 32, 64 in nodes of 8: tokens per second and GPU against one node's."""
    bits = make_layout("bench_paced", 1, 1, rate).rate_bits
    print(f"nodes of 8 ranks, 32 tokens a rank; {steps} steps, paced")
    print("network         rate  EP    scale     step  predicted  efficiency  predicted")
    for name, (bytes_per_second, faster) in NETWORKS.items():
        scale = bytes_per_second / (bits * faster / 8)
        alone: Result | None = None
        for ranks in (8, 16, 32, 64):
            given = deployment(ranks, 32, "sequential", DispatcherKind.HIERARCHICAL, layers=2, hidden=7168)
            nodes_rate = f"{bits * faster}bit"
            (result,) = run(ranks // 8, 8, nodes_rate, [Case(name, given, scale)], steps, lambda _: None)
            alone = alone or result
            predicted, measured = result.predicted.step_seconds, result.measured.step_seconds
            print(
                f"{name:11} {show_rate(bits * faster):>8} {ranks:3} {scale:8,.0f} {measured:7.2f}s {predicted:9.2f}s "
                f"{alone.measured.step_seconds / measured:11.1%} {alone.predicted.step_seconds / predicted:10.1%}",
                flush=True,
            )


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["overlap", "prediction", "scaling"])
    parser.add_argument("--rate", default="200mbit", help="each node's link")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each case")
    arguments = parser.parse_args()
    {"overlap": overlap, "prediction": prediction, "scaling": scaling}[arguments.what](
        arguments.rate, arguments.steps
    )


if __name__ == "__main__":
    main()
