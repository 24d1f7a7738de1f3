"""The synthetic routing behind the published expert timings, rebuilt from its description.

Source: ai-dynamo/aiconfigurator, collector/helper.py and collector/sglang/collect_wideep_deepep_moe.py (Apache-2.0).
The collector draws loads per expert from a bounded power law, five times, and times the fullest rank of each draw;
its random numbers are not published, so predictions are averaged over draws of our own.

Shapes: E experts, R ranks (EP size), S = E / R slots per rank, N draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def power_law_rows(
    tokens: int, experts: int, top_k: int, ranks: int, exponent: float, draws: int, seed: int = 0
) -> Array:
    """Rows per slot of the fullest rank in each draw: (N, S).

    Loads are drawn from p(x) ~ x^-exponent on [1, 0.8 tokens] (where there are fewer rows than experts: on
    [0.01, 2]), scaled to tokens x top-k, rounded, and held to at most one row per token and expert.
    """
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    power = 1.0 - exponent
    uniform_NE = np.random.default_rng(seed).random((draws, experts))
    drawn_NE = (low**power + uniform_NE * (high**power - low**power)) ** (1 / power)
    target_NE = drawn_NE / drawn_NE.sum(axis=1, keepdims=True) * (tokens * top_k)
    rows_NRS = np.minimum(np.rint(target_NE), tokens).reshape(draws, ranks, experts // ranks)
    for rows_RS in rows_NRS:
        _balance(rows_RS, tokens * top_k, tokens)
    fullest_N = rows_NRS.sum(axis=2).argmax(axis=1)
    fullest: Array = rows_NRS[np.arange(draws), fullest_N]
    return fullest


def uniform_rows(tokens: int, experts: int, top_k: int, ranks: int) -> Array:
    """Rows per slot of each rank, (1, S): alike; where there are fewer rows than experts, one each for the first."""
    slots = experts // ranks
    each = tokens * top_k // experts
    if each:
        return np.full((1, slots), float(each))
    rows = np.zeros((1, slots))
    rows[:, : tokens * top_k // ranks] = 1
    return rows


def _balance(rows_RS: Array, total: int, most: int) -> None:
    """Bring the sum to `total` in place: rank by rank in turn, add to the emptiest slots or take from the fullest."""
    ranks = len(rows_RS)
    while (missing := int(total - rows_RS.sum())) != 0:
        allowed = rows_RS < most if missing > 0 else rows_RS > 0
        key = np.where(allowed, rows_RS if missing > 0 else -rows_RS, np.inf)
        place = np.argsort(np.argsort(key, axis=1, kind="stable"), axis=1)
        turn = np.where(allowed, place * ranks + np.arange(ranks)[:, None], rows_RS.size).ravel()
        chosen = np.argsort(turn, kind="stable")[: min(abs(missing), int(allowed.sum()))]
        rows_RS.reshape(-1)[chosen] += np.sign(missing)
