"""One MoE layer under expert parallelism, ours against the peers, on this machine.

`python -m benchmarks.ep_layer` (all of the table, most of an hour) or with `--shape small --ranks 8 --tokens 256` ...:

(a) transformers' own `AllToAllEP`, with whichever of its expert implementations is faster here,
(b) the naive sequence: argsort, `all_to_all_single`, a loop over the experts,
(c) all experts in every process, nothing exchanged (memory times the ranks; for scale, not a rival).

Ours is as `wingspan run` takes it on one host, rows through shared memory; and once more over gloo, as the peers go.

All run in one process group on the same weights and inputs, rounds interleaved, and each is checked against an FP32
reference. Times are medians over rounds of the slowest rank; ratios above 1 mean that ours is faster.

Shapes: T tokens of a rank, K experts per token, D hidden size, E experts, S experts of a rank.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from benchmarks import peers
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step
from wingspan.runtime.transport.shm import SharedMemoryTransport
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a layer; `experts` None: one per rank."""

    name: str
    hidden: int
    intermediate: int
    experts: int | None
    top_k: int


SHAPES = {
    "small": Shape("small: hidden 1024, intermediate 512, 64 experts, top-8", 1024, 512, 64, 8),
    "large": Shape("large: hidden 7168, intermediate 2048, one expert per rank, top-2", 7168, 2048, None, 2),
}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    shape: Shape
    ranks: int
    dtype: torch.dtype
    routing: str
    tokens: int
    seconds: float

    @property
    def experts(self) -> int:
        """Experts of the layer."""
        return self.shape.experts or self.ranks


@torch.inference_mode()
def measure(case: Case) -> None:
    """Fork the ranks, time all contestants, print the line."""
    gate_up_EID, down_EDI = weights(case)
    run_ranks(lambda transport: on_rank(transport, case, gate_up_EID, down_EDI), case.ranks, case.ranks, CPU)


def weights(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Gate and up (E, 2 I, D), down (E, D, I); in memory that the forked ranks share."""
    torch.manual_seed(0)
    hidden, inner = case.shape.hidden, case.shape.intermediate
    one = torch.randn(1, 2 * inner, hidden), torch.randn(1, hidden, inner)
    # The experts differ by a factor: cheaper to make than fresh numbers, and a row at a wrong expert still shows.
    factor = torch.linspace(0.5, 1.5, case.experts)[:, None, None]
    return (one[0] * factor / hidden**0.5).to(case.dtype), (one[1] * factor / inner**0.5).to(case.dtype)


def routing(case: Case, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choices and weights (T, K): uniform, or with probabilities falling as 1 / (rank of the expert)."""
    rng = np.random.default_rng((7, rank))
    E, K = case.experts, min(case.shape.top_k, case.experts)
    popularity = np.ones(E) if case.routing == "uniform" else 1 / np.arange(1, E + 1)
    # Gumbel noise on log popularity: the k largest are a draw without replacement.
    scores = np.log(popularity) + rng.gumbel(size=(case.tokens, E))
    experts_TK = torch.from_numpy(np.argsort(-scores, axis=1)[:, :K].copy())
    weights_TK = torch.from_numpy(rng.dirichlet(np.ones(K), case.tokens)).float()
    return experts_TK, weights_TK


def ours(
    transport: Transport, case: Case, gate_up_SID: torch.Tensor, down_SDI: torch.Tensor
) -> tuple[ExpertParallelLayer, Recorder]:
    """Our layer as `wingspan run` builds it, with its recorder."""
    experts = LocalExperts(peers.experts_module(gate_up_SID.clone(), down_SDI.clone(), "eager"))
    experts.pack()
    placement = linear(1, case.experts, case.ranks, -(-case.experts // case.ranks))
    dispatcher = Dispatchers(placement, transport, Buffers(), CPU, DEFAULT_DISPATCH).for_layer(0)
    recorder = Recorder(transport.world.rank, case.ranks)
    monitor = LoadMonitor(1, case.experts, CPU)
    return ExpertParallelLayer(0, 0, experts, dispatcher, monitor, recorder, Step()), recorder


@torch.inference_mode()
def on_rank(transport: Transport, case: Case, gate_up_EID: torch.Tensor, down_EDI: torch.Tensor) -> None:
    """Build every contestant, check it, take part in the rounds; rank 0 prints."""
    rank, S = transport.world.rank, case.experts // case.ranks
    mine = slice(rank * S, (rank + 1) * S)
    shared = SharedMemoryTransport(transport)
    layer, recorder = ours(shared, case, gate_up_EID[mine], down_EDI[mine])
    contestants: dict[str, peers.Layer] = {
        "ours": layer,
        "gloo": ours(transport, case, gate_up_EID[mine], down_EDI[mine])[0],
        "a eager": peers.all_to_all_ep(gate_up_EID[mine], down_EDI[mine], "eager"),
        "a grouped": peers.all_to_all_ep(gate_up_EID[mine], down_EDI[mine], "grouped_mm"),
        "b": peers.naive(gate_up_EID[mine], down_EDI[mine]),
        "c": peers.everything_here(gate_up_EID, down_EDI, "grouped_mm"),
    }
    x_TD = torch.randn(case.tokens, case.shape.hidden, generator=torch.Generator().manual_seed(rank)).to(
        case.dtype
    )
    inputs = (x_TD, *routing(case, rank))
    check(case, contestants, inputs, gate_up_EID, down_EDI)
    times = {
        name: statistics.median(values)
        for name, values in rounds(transport, case, contestants, inputs).items()
    }
    parts = breakdown(layer, recorder, inputs)
    if rank == 0:
        show(case, times, parts)
    shared.close()


def rounds(
    transport: Transport, case: Case, contestants: dict[str, peers.Layer], inputs: tuple[torch.Tensor, ...]
) -> dict[str, list[float]]:
    """Seconds of every contestant in every round: those of the slowest rank."""
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + case.seconds
    for number in itertools.count():
        going_on = number < 3 or time.perf_counter() < end
        if not bool(transport.broadcast(going_on)):
            return times
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            dist.barrier()
            start = time.perf_counter()
            contestants[name](*inputs)
            spent = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
            times[name].append(float(transport.share(spent).max()))
    return times


def breakdown(
    layer: ExpertParallelLayer, recorder: Recorder, inputs: tuple[torch.Tensor, ...]
) -> dict[Operation, float]:
    """Where this rank's time goes in our layer: medians of five calls."""
    for _ in range(5):
        dist.barrier()
        recorder.begin_step("prefill", len(inputs[0]))
        layer(*inputs)
        recorder.end_step()
    steps = recorder.steps[-5:]
    operations = (Operation.DISPATCH, Operation.EXPERT, Operation.COMBINE)
    return {op: statistics.median(s.operation_seconds[op] for s in steps) for op in operations}


def check(
    case: Case,
    contestants: dict[str, peers.Layer],
    inputs: tuple[torch.Tensor, ...],
    gate_up_EID: torch.Tensor,
    down_EDI: torch.Tensor,
) -> None:
    """Every contestant against FP32 on the first tokens; raises where one is wrong."""
    few = slice(0, 16)
    expected = reference(*(i[few] for i in inputs), gate_up_EID, down_EDI)
    for name, layer in contestants.items():
        got = layer(*inputs)[few].float()
        error = float((got - expected).abs().max() / expected.abs().max())
        if not error <= TOLERANCE[case.dtype]:
            raise RuntimeError(f"{name} is off by {error:.1e} of the largest value")


def reference(
    x_TD: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_EID: torch.Tensor,
    down_EDI: torch.Tensor,
) -> torch.Tensor:
    """Token by token, in FP32."""
    out_TD = torch.zeros(x_TD.shape)
    for t, (chosen, weight) in enumerate(zip(experts_TK.tolist(), weights_TK.tolist(), strict=True)):
        for e, w in zip(chosen, weight, strict=True):
            gate, up = (gate_up_EID[e].float() @ x_TD[t].float()).chunk(2)
            out_TD[t] += w * (down_EDI[e].float() @ (nn.functional.silu(gate) * up))
    return out_TD


def show(case: Case, times: dict[str, float], parts: dict[Operation, float]) -> None:
    """Print one line of the table."""
    a = min(times["a eager"], times["a grouped"])
    best = times["ours"]
    ratios = {
        "a": a / best,
        "b": times["b"] / best,
        "c": times["c"] / best,
        "ours/gloo": times["gloo"] / best,
    }
    spent = " ".join(f"{op.value} {seconds * 1e3:.1f}" for op, seconds in parts.items())
    print(
        f"{case.shape.name.split(':')[0]:6} {case.ranks} ranks {str(case.dtype)[6:]:8} {case.routing:8} "
        f"{case.tokens:>5} tokens | ours {times['ours'] * 1e3:8.2f} ms | "
        + " ".join(f"{name} {ratio:5.2f}x" for name, ratio in ratios.items())
        + f" | {spent} ms",
        flush=True,
    )


def main() -> None:
    """Measure the chosen part of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="*", default=list(SHAPES))
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="*", default=[16, 256, 1024], help="tokens per rank")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], nargs="*", default=["float32", "bfloat16"]
    )
    parser.add_argument("--routing", choices=["uniform", "skewed"], nargs="*", default=["uniform", "skewed"])
    parser.add_argument("--seconds", type=float, default=4.0, help="time for the rounds of each line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, ranks, dtype, kind, tokens in itertools.product(
        arguments.shape, arguments.ranks, arguments.dtype, arguments.routing, arguments.tokens
    ):
        measure(Case(SHAPES[name], ranks, getattr(torch, dtype), kind, tokens, arguments.seconds))


if __name__ == "__main__":
    main()
