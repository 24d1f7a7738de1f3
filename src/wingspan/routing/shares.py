"""How a layer's tokens spread over its experts, as shares: uniform, power law, log-normal, or recorded counts.

A share is the probability that a token picks the expert: at most 1, and the shares of a layer sum to top-k.
Shapes: L MoE layers, E logical experts per layer, P parts of a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wingspan.errors import InputError

Shares = NDArray[np.float64]


def uniform(num_layers: int, num_experts: int, top_k: int) -> Shares:
    """Every expert alike: (L, E)."""
    return np.full((num_layers, num_experts), top_k / num_experts)


def power_law(num_layers: int, num_experts: int, top_k: int, exponent: float, seed: int) -> Shares:
    """The expert of rank n, from 1, gets a share proportional to n^-exponent; each layer in an order of its own."""
    falling_E = np.arange(1, num_experts + 1, dtype=np.float64) ** -exponent
    rng = np.random.default_rng(seed)
    return as_shares(rng.permuted(np.tile(falling_E, (num_layers, 1)), axis=1), top_k)


def log_normal(num_layers: int, num_experts: int, top_k: int, sigma: float, seed: int) -> Shares:
    """Shares proportional to exp(sigma x standard normal), drawn for each (layer, expert)."""
    rng = np.random.default_rng(seed)
    return as_shares(np.exp(sigma * rng.standard_normal((num_layers, num_experts))), top_k)


def as_shares(counts_LE: ArrayLike, top_k: int) -> Shares:
    """Counts or any weights as shares: scaled to top-k, with nothing above 1.

    What an expert would have above 1 goes to the layer's others in proportion: a token picks it once at most.

    Example: `[[6, 1, 1]]` with top-2 would be `[1.5, 0.25, 0.25]`, and becomes `[1, 0.5, 0.5]`.

    Raises:
        InputError: a negative count, a layer without any, or with fewer experts than top-k.
    """
    counts = np.array(counts_LE, dtype=np.float64, ndmin=2)
    if (counts < 0).any() or not np.isfinite(counts).all():
        raise InputError("routing: loads must be numbers of at least 0")
    if ((counts > 0).sum(axis=1) < top_k).any():
        layer = int(((counts > 0).sum(axis=1) < top_k).argmax())
        raise InputError(f"routing: MoE layer {layer} loads fewer experts than top-k {top_k}")
    full = np.zeros(counts.shape, dtype=bool)
    while True:
        left = top_k - full.sum(axis=1, keepdims=True)
        free = np.where(full, 0.0, counts)
        total = free.sum(axis=1, keepdims=True)
        scaled = np.divide(free * left, total, out=np.zeros_like(free), where=total > 0)
        over = scaled > 1.0
        if not over.any():
            return np.where(full, 1.0, scaled)
        full |= over


def draw_loads(shares_LE: Shares, tokens: int, parts: int, seed: int) -> NDArray[np.float64]:
    """Tokens per expert of one step, drawn: (parts, L, E); each part is a step of `tokens / parts` tokens.

    Every (token, choice) picks by the shares, independently: a layer's loads sum to tokens x top-k in all.
    """
    rng = np.random.default_rng(seed)
    top_k = shares_LE.sum(axis=1).round().astype(np.int64)
    picks = tokens * top_k
    first = np.array([(picks * (part + 1)) // parts - (picks * part) // parts for part in range(parts)])
    probability = shares_LE / shares_LE.sum(axis=1, keepdims=True)
    return rng.multinomial(first, probability[None]).astype(np.float64)
