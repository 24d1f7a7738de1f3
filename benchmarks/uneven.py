"""Random steps of uneven batches through two MoE layers whose results are known exactly.

Each rank has from no tokens to some hundreds, some of them padding; sometimes no rank has any, or all choose one
expert. An expert multiplies by a number of its own, so a line of torch gives what must come out, and the numbers are
such that every sum is exact in any order.

Shapes: R ranks, E = R experts, T tokens of this rank, K experts per token, D hidden size, S slots of this rank, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wingspan.placement.simple import linear
from wingspan.runtime.model.step import Flow, flow_named
from wingspan.specs.placement import Placement

HIDDEN = 1024
"""Wide enough that the larger exchanges count as bulk, and the others do not."""
TOP_K = 3
MOST_TOKENS = 300
FLOWS = [flow_named(name) for name in ("sequential", "chunks:2", "chunks:4", "two-batch")]


@dataclass(frozen=True)
class Plan:
    """One step, as all ranks know it. `hot`: the expert that every token chooses, if any."""

    flow: Flow
    dtype: torch.dtype
    tokens_R: list[int]
    hot: int | None


@dataclass(frozen=True)
class Batch:
    """One rank's tokens and their choices in both layers; `valid_T` None: none is padding."""

    x_TD: torch.Tensor
    valid_T: torch.Tensor | None
    experts_LTK: torch.Tensor
    weights_TK: torch.Tensor


def largest_steps(ranks: int) -> int:
    """How many steps at the start are the largest: one of every schedule at every expert."""
    return len(FLOWS) * ranks


def plan(number: int, ranks: int) -> Plan:
    """A step: one of the largest, later a random one."""
    rng = np.random.default_rng((1, number))
    R, dtype = ranks, (torch.float32, torch.bfloat16)[rng.integers(2)]
    if number < largest_steps(R):
        # Wider rows first: they need the larger buffers.
        return Plan(FLOWS[number % len(FLOWS)], torch.float32, [MOST_TOKENS] * R, number // len(FLOWS))
    tokens_R = rng.integers(0, MOST_TOKENS + 1, R) * (rng.random(R) < 0.8) * (rng.random() < 0.95)
    hot = int(rng.integers(R)) if rng.random() < 0.2 else None
    return Plan(FLOWS[rng.integers(len(FLOWS))], dtype, tokens_R.tolist(), hot)


def batch(number: int, plan: Plan, rank: int) -> Batch:
    """This rank's part of the step."""
    rng = np.random.default_rng((2, number, rank))
    T, E = plan.tokens_R[rank], len(plan.tokens_R)
    skew = rng.choice([0.0, 1.0, 2.0])
    popularity_E = -skew * np.log(rng.permutation(E) + 1.0)
    if plan.hot is not None:
        popularity_E[plan.hot] = np.inf
    # Gumbel noise on log popularity: the k largest are a draw without replacement.
    scores_LTE = popularity_E + rng.gumbel(size=(2, T, E))
    valid_T = torch.from_numpy(rng.random(T) < 0.9) if rng.random() < 0.3 else None
    return Batch(
        torch.from_numpy(rng.choice([-2, -1, 1, 2], (T, HIDDEN))).to(plan.dtype),
        valid_T,
        torch.from_numpy(np.argsort(-scores_LTE, axis=2)[:, :, :TOP_K].copy()),
        torch.from_numpy(rng.integers(1, 5, (T, TOP_K)) / 4).float(),
    )


def factor_of(experts: torch.Tensor) -> torch.Tensor:
    """What each expert multiplies by: at most 8, so that BF16 holds every sum of quarters exactly."""
    return 1 + experts % 8


def expected(given: Batch, layer: int) -> torch.Tensor:
    """The plain dense sum (T, D) of a layer, in FP32; zero for padding."""
    factor_TK = given.weights_TK * factor_of(given.experts_LTK[layer])
    y_TD = given.x_TD.float() * factor_TK.sum(1, keepdim=True)
    return y_TD if given.valid_T is None else y_TD * given.valid_T[:, None]


class MultiplyingExperts:
    """A rank's experts."""

    def __init__(self, experts: Sequence[int]) -> None:
        self._factor_S = factor_of(torch.tensor(experts))

    def __call__(
        self, rows_ND: torch.Tensor, counts_S: Sequence[int], *, in_place: bool = False
    ) -> torch.Tensor:
        """Rows sorted by slot, each times its expert's number."""
        factor_N = self._factor_S.repeat_interleave(torch.tensor(counts_S))
        return torch.mul(rows_ND, factor_N[:, None].to(rows_ND.dtype), out=rows_ND if in_place else None)


def placements(ranks: int) -> tuple[Placement, Placement]:
    """The two layers': one expert per rank; and every expert twice, on the rank of its number and on the one before."""
    twice = [[[rank, (rank + 1) % ranks] for rank in range(ranks)]]
    return linear(1, ranks, ranks), Placement(np.array(twice), ranks)
