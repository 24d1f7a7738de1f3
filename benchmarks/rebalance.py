"""A hot spot that moves, with and without live balancing: `python -m benchmarks.rebalance`.

Twelve ranks, eight experts, four spare ranks; real layers, exchanges and migrations. The compute is *paced*: an expert
computes its rows and then sleeps in proportion to them, as a slower processor would, because twelve ranks share the
few cores of one machine. So step times show what load does to a rank that has its own processor; transfers and the
balancing itself take what they really take here, cores shared.

Both runs see the same tokens. Every token's outputs give a "word" (the largest of 64 random projections), and the words
of the two runs must be the same.

Shapes: T tokens of a rank in a step, L layers, K experts per token, E experts, D hidden size, I intermediate size.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import peers
from wingspan.balance.settings import Rebalance
from wingspan.placement.simple import linear
from wingspan.report.rebalance import lines
from wingspan.routing.load import imbalance
from wingspan.routing.synthetic import TraceShape, generate
from wingspan.routing.workloads import workload
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.model.step import Step
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.rebalance_result import Migrated, RebalanceEvent
from wingspan.traffic.distinct import Choice

CPU = torch.device("cpu")
EXPERTS, TOP_K, HIDDEN, INNER, WORDS = 8, 2, 256, 256, 64


@dataclass(frozen=True)
class Case:
    """What is run."""

    ranks: int
    layers: int
    steps: int
    turns: int
    tokens: int
    hot_share: float
    seconds_per_row: float


@dataclass(frozen=True)
class Outcome:
    """What one rank saw."""

    step_seconds: list[float]
    balancing_seconds: list[float]
    """Part of each step spent on balancing, waiting for the other ranks in it included."""
    rows_NL: NDArray[np.int64]
    """Rows computed in each step and layer."""
    words_NT: NDArray[np.int64]
    events: list[RebalanceEvent]


class PacedExperts(LocalExperts):
    """Takes `seconds_per_row` longer for every row."""

    seconds_per_row = 0.0

    def __call__(
        self, rows_ND: torch.Tensor, counts_S: Sequence[int], *, in_place: bool = False
    ) -> torch.Tensor:
        """See `LocalExperts`."""
        out_ND = super().__call__(rows_ND, counts_S, in_place=in_place)
        time.sleep(len(rows_ND) * self.seconds_per_row)
        return out_ND


def trace(case: Case) -> torch.Tensor:
    """Choices (steps, ranks, T, L, K) of a rotating hot spot."""
    tokens = case.steps * case.ranks * case.tokens
    shape = TraceShape(tokens, case.layers, EXPERTS, TOP_K, case.ranks, request_tokens=case.tokens)
    kind = workload("rotating", shape, 0, hot_share=case.hot_share, turns=case.turns)
    picks = np.concatenate([piece.experts_TLK for piece in generate(shape, kind, 0)]).astype(np.int64)
    return torch.from_numpy(picks.reshape(case.steps, case.ranks, case.tokens, case.layers, TOP_K))


def build(
    transport: Transport, case: Case, settings: Rebalance | None
) -> tuple[list[ExpertParallelLayer], Recorder, LoadMonitor, Rebalancer | None]:
    """The layers as `wingspan run` builds them, on a linear placement whose last ranks are spare."""
    rank = transport.world.rank
    placement = linear(case.layers, EXPERTS, case.ranks)
    recorder = Recorder(rank, case.ranks, keep_steps=case.steps)
    monitor = LoadMonitor(case.layers, EXPERTS, CPU)
    dispatchers, step = Dispatchers(placement, transport, Buffers(), CPU, DEFAULT_DISPATCH), Step()
    layers = []
    for index in range(case.layers):
        torch.manual_seed(index)
        up_EID = torch.randn(EXPERTS, 2 * INNER, HIDDEN) / HIDDEN**0.5
        down_EDI = torch.randn(EXPERTS, HIDDEN, INNER) / INNER**0.5
        held = placement.experts_on(index, rank)
        experts = PacedExperts(peers.experts_module(up_EID[held].clone(), down_EDI[held].clone(), "eager"))
        experts.pack()
        experts.seconds_per_row = case.seconds_per_row
        dispatcher = dispatchers.for_layer(index)
        layers.append(ExpertParallelLayer(index, index, experts, dispatcher, monitor, recorder, step))
    if settings is None:
        return layers, recorder, monitor, None
    rebalancer = Rebalancer(
        settings, transport, placement, layers,
        dispatchers, monitor, recorder, HIDDEN * 4, Choice(EXPERTS, TOP_K), CPU,
    )  # fmt: skip
    return layers, recorder, monitor, rebalancer


@torch.inference_mode()
def on_rank(transport: Transport, case: Case, settings: Rebalance | None, choices: torch.Tensor) -> Outcome:
    """All steps on one rank."""
    layers, recorder, monitor, rebalancer = build(transport, case, settings)
    rank = transport.world.rank
    head_DV = torch.randn(HIDDEN, WORDS, generator=torch.Generator().manual_seed(99))
    weights_TK = torch.full((case.tokens, TOP_K), 1 / TOP_K)
    words, rows, balancing = [], [], []
    for number in range(case.steps):
        draw = torch.Generator().manual_seed(number * case.ranks + rank)
        x_TD = torch.randn(case.tokens, HIDDEN, generator=draw)
        before = [layer.experts.rows for layer in layers]
        recorder.begin_step("decode", case.tokens)
        for index, layer in enumerate(layers):
            y_TD = layer(x_TD, choices[number, rank, :, index], weights_TK)
            x_TD = torch.nn.functional.rms_norm(x_TD + y_TD, (HIDDEN,))
        words.append((x_TD @ head_DV).argmax(1))
        # Ranks meet at the end of a step, as they do where tokens are shared.
        transport.share(words[-1])
        left = case.steps - number - 1
        load_LE = monitor.take()
        start = time.monotonic()
        if rebalancer is not None and left:
            rebalancer.after_step(load_LE, left)
        balancing.append(time.monotonic() - start)
        recorder.end_step()
        rows.append([layer.experts.rows - b for layer, b in zip(layers, before, strict=True)])
    events = [] if rebalancer is None else rebalancer.finish()
    seconds = [s.seconds for s in recorder.steps]
    return Outcome(seconds, balancing, np.array(rows), torch.stack(words).numpy(), events)


def run(case: Case, settings: Rebalance | None, choices: torch.Tensor) -> list[Outcome]:
    """Every rank's outcome."""
    with tempfile.TemporaryDirectory() as folder:

        def work(transport: Transport) -> None:
            outcome = on_rank(transport, case, settings, choices)
            (Path(folder) / str(transport.world.rank)).write_bytes(pickle.dumps(outcome))

        run_ranks(work, case.ranks, case.ranks, CPU)
        return [pickle.loads((Path(folder) / str(r)).read_bytes()) for r in range(case.ranks)]


def step_imbalance(outcomes: list[Outcome]) -> float:
    """Mean over steps of max / mean of the ranks' rows, per layer, then averaged over layers."""
    rows_NLR = np.stack([o.rows_NL for o in outcomes], axis=2)
    return statistics.mean(imbalance(rows_LR) for rows_LR in rows_NLR)


def slowest(outcomes: list[Outcome]) -> NDArray[np.float64]:
    """Of every step the slowest rank's seconds."""
    return np.array([o.step_seconds for o in outcomes]).max(axis=0)


def during(migrations: list[Migrated], seconds_N: NDArray[np.float64]) -> list[float]:
    """For each step with experts under way: its seconds over the median of the eight steps before the migration."""
    ratios = []
    for m in migrations:
        usual = float(np.median(seconds_N[max(0, m.first_step - 8) : m.first_step]))
        ratios += (seconds_N[m.first_step : m.last_step] / usual).tolist()
    return ratios


def show(name: str, outcomes: list[Outcome]) -> None:
    """One line."""
    seconds_N = slowest(outcomes)
    print(
        f"{name:5} step mean {seconds_N.mean() * 1e3:6.1f} ms, median {np.median(seconds_N) * 1e3:6.1f} ms, "
        f"longest {seconds_N.max() * 1e3:6.1f} ms | max/mean rank load {step_imbalance(outcomes):.2f}",
        flush=True,
    )


def main() -> None:
    """Both runs, and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=12)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--turns", type=int, default=4, help="places of the hot spot")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a rank in a step")
    parser.add_argument("--hot-share", type=float, default=0.5)
    parser.add_argument("--row-ms", type=float, default=0.4, help="paced: milliseconds that a row takes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(
        given.ranks, given.layers, given.steps, given.turns, given.tokens, given.hot_share, given.row_ms / 1e3
    )
    choices = trace(case)
    off, auto = run(case, None, choices), run(case, Rebalance(), choices)
    print(f"{case}; compute paced, transfers real")
    show("off", off)
    show("auto", auto)
    same = all(np.array_equal(a.words_NT, b.words_NT) for a, b in zip(off, auto, strict=True))
    print(
        f"words of the two runs: {'the same' if same else 'DIFFERENT'} ({off[0].words_NT.size * case.ranks})"
    )
    events = auto[0].events
    migrations = [e for e in events if isinstance(e, Migrated)]
    print(f"mean step time off / auto: {slowest(off).mean() / slowest(auto).mean():.2f}")
    ratios, noise = during(migrations, slowest(auto)), during(migrations, slowest(off))
    print(
        f"{len(ratios)} steps with experts under way: longest {max(ratios, default=0):.2f} x, mean "
        f"{statistics.mean(ratios or [0]):.2f} x the median of the eight steps before (the same steps of the run "
        f"without balancing, noise alone: {max(noise, default=0):.2f} x, {statistics.mean(noise or [0]):.2f} x)"
    )
    # The rank that comes last to a meeting waits for nobody in it.
    balancing_N = np.array([o.balancing_seconds for o in auto]).min(axis=0)
    print(
        f"balancing itself: {balancing_N.sum() / slowest(auto).sum():.2%} of the time; in one step at most "
        f"{balancing_N.max() * 1e3:.1f} ms, {balancing_N.max() / np.median(slowest(auto)):.1%} of the median step"
    )
    for line in lines(events):
        print(line)


if __name__ == "__main__":
    main()
