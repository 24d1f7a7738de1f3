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


GROUP_EXPERTS = 32
"""Neighbouring experts that may be popular together: DeepSeek-V3's groups (arXiv:2412.19437, section 4.2)."""


def log_normal(
    num_layers: int, num_experts: int, top_k: int, sigma: float, seed: int, group_sigma: float = 0.0
) -> Shares:
    """Shares proportional to exp(sigma x standard normal), drawn for each (layer, expert).

    Args:
        group_sigma: the same once more for each group of `GROUP_EXPERTS` neighbours. Without it ranks that hold many
            experts come out more even than recorded ones: 0.51 and 0.3 give mean / max of the ranks' load 0.67, 0.62,
            0.55 and 0.45 at 8, 16, 32 and 64 ranks (docs/cost-model.md, Whole steps).
    """
    rng = np.random.default_rng(seed)
    exponent_LE = sigma * rng.standard_normal((num_layers, num_experts))
    if group_sigma:
        groups_LG = rng.standard_normal((num_layers, -(-num_experts // GROUP_EXPERTS)))
        exponent_LE += group_sigma * np.repeat(groups_LG, GROUP_EXPERTS, axis=1)[:, :num_experts]
    return as_shares(np.exp(exponent_LE), top_k)


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

    Every (token, choice) picks by the shares, independently: a layer's loads sum to tokens x top-k in all. Where an
    expert is picked by every token of every layer (a shared one in a slot), nothing of it is chance.
    """
    rng = np.random.default_rng(seed)
    sure_E = (shares_LE == 1.0).all(axis=0)
    drawn_LE = np.where(sure_E, 0.0, shares_LE)
    top_k = drawn_LE.sum(axis=1).round().astype(np.int64)
    probability = drawn_LE / np.maximum(drawn_LE.sum(axis=1, keepdims=True), 1e-300)
    loads_PLE = rng.multinomial(_parted(tokens * top_k, parts), probability[None]).astype(np.float64)
    loads_PLE[..., sure_E] = _parted(np.array([tokens]), parts)[..., None]
    return loads_PLE


def _parted(whole: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Whole numbers in parts as even as can be: (parts, ...)."""
    return np.array([(whole * (part + 1)) // parts - (whole * part) // parts for part in range(parts)])
